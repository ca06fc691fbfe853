"""Processes that prepare one dataset at once: `python -m tests.preparing HOME SPEC PROCESSES`.

Everything is imported before the processes are forked, and all begin together. Prints the id that
each was given, and whether it had found the snapshot finished, as one JSON list.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import sys
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any

import automl.data.prepare  # noqa: F401 - before the forks
from automl.domain.parsing import parse_spec
from automl.steps.context import StepContext
from automl.steps.prepare import prepare
from automl.steps.settings import Settings

_READY_S = 120.0  # many processes on few cores


def _prepare(home: str, spec: dict[str, Any], together: Barrier, given: SimpleQueue[Any]) -> None:
    logging.getLogger("distributed").setLevel(logging.WARNING)
    context = StepContext.open(Settings(home), parse_spec(spec), "one", "test")
    together.wait(_READY_S)
    manifest = prepare(context, lambda *_: None)
    given.put([manifest.id, manifest.reused])


def main(home: str, spec: dict[str, Any], count: int) -> None:
    """Prepare in `count` processes and print what they were given."""
    fork = multiprocessing.get_context("fork")
    together, given = fork.Barrier(count), fork.SimpleQueue()
    arguments = (home, spec, together, given)
    processes = [fork.Process(target=_prepare, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0, f"a process ended with {process.exitcode}"
    print(json.dumps([given.get() for _ in processes]))  # noqa: T201 - its result


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
