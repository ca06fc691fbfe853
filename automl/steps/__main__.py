"""`python -m automl.steps STEP`: run one step in this process.

Reads one JSON payload from standard input and writes one JSON document, `{"result": …}` or
`{"error": …}`, to the file descriptor named by `AUTOML_RESULT_FD`. Logs go to standard error. The
exit code is 0 or that of the error.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from automl.errors import AutoMLError, ConfigError
from automl.machine.labels import RESULT_FD_VARIABLE

if TYPE_CHECKING:
    from automl.storage.home import Home

log = logging.getLogger("automl.steps")


def main(arguments: list[str], home: Home | None = None) -> int:
    """Run the step named by the only argument and return the exit code.

    Args:
        arguments: the step's name.
        home: where all state is kept; by default what the environment names.
    """
    # Waiting threads sleep instead of spinning: trials share the machine. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("distributed").setLevel(logging.WARNING)
    try:
        if len(arguments) != 1:
            raise ConfigError("Usage: python -m automl.steps STEP", "the payload goes to stdin")
        from automl.steps.dispatch import run_named_step

        payload: dict[str, Any] = json.load(sys.stdin)
        document: dict[str, Any] = {"result": run_named_step(arguments[0], payload, home)}
        code = 0
    except AutoMLError as error:
        log.error("%s", error)  # noqa: TRY400 - the message is for people, not a traceback
        document, code = {"error": error_document(error)}, error.exit_code
    with os.fdopen(int(os.environ[RESULT_FD_VARIABLE]), "w") as result:
        json.dump(document, result)
    return code


def error_document(error: AutoMLError) -> dict[str, Any]:
    """Return the JSON form of `error`."""
    return {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "problems": [{"path": p.path, "message": p.message} for p in error.problems],
        "retryable": error.retryable,
    }


def _end() -> None:
    """End the process without freeing its objects one by one.

    With torch loaded that takes a second, on a busy machine several of the five after SIGTERM.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    exit_code = 1  # that of an exception which nobody foresaw
    atexit.register(_end)  # the first to be registered of all functions at exit is the last to run
    exit_code = main(sys.argv[1:])
