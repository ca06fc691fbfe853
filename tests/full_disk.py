"""A worker whose disk is full for a while: `python -m tests.full_disk SCENE QUOTA FOLDER`.

Prints what happened as one JSON document. The quota is one that the process really meets:

* `limit`: the kernel's limit on the size of a process's files, set while the worker runs;
* `tmpfs`: FOLDER is a file system of 64 MiB of its own, which this script mounts and fills; the
  mount needs a user namespace (`unshare --user --map-root-user --mount python …`).
"""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import psutil

from automl.domain.events import TrialFinished
from automl.domain.settings import Settings
from automl.domain.study import replay
from automl.machine.process import StepResult, run_step
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.steps import prepare
from automl.training.checkpoint import Checkpoint
from tests.digits import study_of_digits

ROOM = 64 * 1024  # bytes: enough for leases, log and a whole curve, too little for a checkpoint
_TMPFS_BYTES = 64 * 2**20  # room for some ten checkpoints
_POLL_S = 0.05


class Quota(Protocol):
    """Takes the worker's room away and gives it back."""

    def take(self, room: int) -> None:
        """Leave the worker, also one that starts from now on, `room` bytes."""

    def room_for_leases(self, context: StepContext) -> int:
        """Return a room in which leases can be renewed, but the log soon not appended to."""

    def give(self) -> None:
        """Let everybody write again."""


class FileSizeLimit:
    """Forbids the worker's process files above a size."""

    def __init__(self) -> None:
        self._room: int | None = None
        self._lock = threading.Lock()  # else a look at the processes could outlive the limit
        threading.Thread(target=self._watch, daemon=True).start()

    def take(self, room: int) -> None:
        with self._lock:
            self._room = room

    def room_for_leases(self, context: StepContext) -> int:
        """A version of the log is larger than a lease."""
        return len(context.store.get("studies/digits/leases/run.json").data) + 16

    def give(self) -> None:
        with self._lock:
            self._room = None  # the limit ended with the process

    def _watch(self) -> None:
        while True:
            with self._lock:
                room, worker = self._room, find_worker()
                if room is not None and worker is not None:
                    with suppress(ProcessLookupError):
                        _, hard = resource.prlimit(worker, resource.RLIMIT_FSIZE)
                        resource.prlimit(worker, resource.RLIMIT_FSIZE, (room, hard))
            time.sleep(_POLL_S)


class SmallFileSystem:
    """Fills the file system of a folder with a file."""

    def __init__(self, folder: Path) -> None:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_TMPFS_BYTES}", "none", str(folder)]
        subprocess.run(mount, check=True)
        self._folder, self._ballast = folder, folder / "ballast"

    def take(self, room: int) -> None:
        with self._ballast.open("wb") as file:
            while True:
                status = os.statvfs(self._folder)
                try:
                    size = status.f_bavail * status.f_frsize - room
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:  # the worker has just written something
                    if error.errno != errno.ENOSPC:
                        raise
                else:
                    return

    def room_for_leases(self, context: StepContext) -> int:
        """Two pages: the ticket takes one, the trial's lease the other, the claim finds none."""
        return 2 * os.sysconf("SC_PAGE_SIZE")

    def give(self) -> None:
        self._ballast.unlink()


def find_worker() -> int | None:
    """Return the id of the worker's process, None if there is none."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if "run_worker" in child.cmdline():
                return int(child.pid)
    return None


class Study:
    """A study with an open run and one worker, which is started as often as the test likes."""

    def __init__(self, folder: Path) -> None:
        search = {"time_limit": "10m", "max_trials": 1, "workers": 1}
        self.spec = study_of_digits(folder, 250, search=search, final_fit={})
        self.settings = Settings(str(folder / "home"))
        self.lines: list[str] = []
        context = self.context()
        with RunLease(context):
            opening.open_run(context, prepare.prepare(context, lambda *_: None).id)

    def context(self) -> StepContext:
        return StepContext.open(self.settings, self.spec, "one", "test")

    def work(self, on_line: Callable[[str], None]) -> StepResult:
        """Run the worker's process to its end; `on_line` gets its lines."""

        def heard(line: str) -> None:
            self.lines.append(line)
            on_line(line)

        document = self.spec.model_dump(mode="json", by_alias=True)
        return run_step(
            "run_worker",
            {"spec": document, "run": "one", "worker": 0, "origin": "test"},
            env={**os.environ, "AUTOML_HOME": self.settings.home},
            timeout_s=300,
            on_line=heard,
            stop=lambda: False,
        )

    def facts(self) -> dict[str, Any]:
        """Return what the home holds now; every checkpoint and the whole log must be readable."""
        context = self.context()
        keys = [entry.key for entry in context.store.list("studies/")]
        checkpoints = [key for key in keys if "/checkpoint-" in key]
        study = replay(context.record.log.read())
        return {
            "epochs": sorted(
                Checkpoint.from_bytes(context.store.get(key).data).epoch for key in checkpoints
            ),
            "sizes": [len(context.store.get(key).data) for key in checkpoints],
            "trials": [
                {
                    "attempt": trial.attempt,
                    "deaths": trial.deaths,
                    "outcome": trial.outcome,
                    "resumed_at": trial.measurement.resumed_at,
                }
                for trial in study.trials
            ],
            "ends": sum(isinstance(e, TrialFinished) for _, e in context.record.log.read()),
            "version": study.version,
            "temporary": [str(path) for path in Path(self.settings.home, ".tmp").iterdir()],
        }


def checkpoint(study: Study, quota: Quota) -> dict[str, Any]:
    """The room ends when a checkpoint has been stored, and comes back when the worker is gone."""
    taken = threading.Event()

    def take(line: str) -> None:
        if "epoch 1:" in line and not taken.is_set():
            taken.set()
            quota.take(ROOM)

    failed = study.work(take)
    return _continued(study, quota, failed)


def append(study: Study, quota: Quota) -> dict[str, Any]:
    """There is no room for versions of the log when the worker wants its first trial."""
    quota.take(quota.room_for_leases(study.context()))
    failed = study.work(lambda _: None)
    return _continued(study, quota, failed)


def _continued(study: Study, quota: Quota, failed: StepResult) -> dict[str, Any]:
    """Look at what there is, make room, run the worker again, and look again."""
    during = study.facts()
    quota.give()
    ended = study.work(lambda _: None)
    return {
        "failed": _ending(failed),
        "during": during,
        "ended": _ending(ended),
        "after": study.facts(),
        "lines": study.lines,
    }


def _ending(result: StepResult) -> dict[str, Any]:
    document = {"result": result.result, "signal": result.signal}
    return document | {"failure": asdict(result.failure) if result.failure else None}


def main(scene: str, quota: str, folder: Path) -> None:
    """Play the scene and print what happened."""
    limit = SmallFileSystem(folder) if quota == "tmpfs" else FileSizeLimit()
    play = {"checkpoint": checkpoint, "append": append}[scene]
    print(json.dumps(play(Study(folder), limit)))  # noqa: T201 - its result


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
