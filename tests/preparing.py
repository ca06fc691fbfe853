"""Processes that prepare one dataset at once: `python -m tests.preparing HOME SPEC N [KEY]`.

Everything is imported before the processes are forked, and all begin together. Prints the id that
each was given, and whether it had found the snapshot finished, as one JSON list. With KEY, each is
killed when it has written a key that ends so.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar

import automl.tracks.image.prepare  # noqa: F401 - before the forks
from automl.domain.settings import Settings
from automl.runs.context import StepContext
from automl.steps.prepare import prepare
from automl.steps.study_file import study_spec
from benchmarks.observed_home import install, observed_home

T = TypeVar("T")
_READY_S = 120.0  # many processes on few cores


class KillAfter:
    """Kills the process once it has written a key.

    Args:
        ending: end of the key; "" for none.
    """

    def __init__(self, ending: str) -> None:
        self._ending = ending

    def around(self, name: str, key: str, call: Callable[[], T], *, sent_bytes: int = 0) -> T:
        """Carry out `call`."""
        result = call()
        if self._ending and sent_bytes and key.endswith(self._ending):
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def _prepare(
    home: str, spec: dict[str, Any], together: Barrier, given: SimpleQueue[Any], point: KillAfter
) -> None:
    logging.getLogger("distributed").setLevel(logging.WARNING)
    install(point)
    settings = Settings(home)
    context = StepContext.open(settings, study_spec(spec), "one", "test", observed_home(settings))
    together.wait(_READY_S)
    manifest = prepare(context, lambda *_: None)
    given.put([manifest.id, manifest.reused])


def main(home: str, spec: dict[str, Any], count: int, ending: str = "") -> None:
    """Prepare in `count` processes and print what they were given."""
    fork = multiprocessing.get_context("fork")
    together, given = fork.Barrier(count), fork.SimpleQueue()
    arguments = (home, spec, together, given, KillAfter(ending))
    processes = [fork.Process(target=_prepare, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0, f"a process ended with {process.exitcode}"
    print(json.dumps([given.get() for _ in processes]))  # noqa: T201 - its result


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
