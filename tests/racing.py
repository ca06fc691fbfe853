"""Processes that race for one registry; `python -m tests.racing PLAN` starts them, PLAN being JSON.

Everything is imported before the processes are forked, so that all of them begin at once. Each
writes what its calls returned, one JSON line per call, to a file of its own: what a killed process
had been told is known too.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from automl.domain.layout import MODEL_FILE
from automl.errors import NotFoundError
from automl.publishing.manifest import Champion, parse_record
from automl.publishing.registry import Registry
from automl.storage.objects import ObjectStore
from automl.storage.open import open_store
from tests.versions import NOW

STUDY = "greens"
_CONNECTED_S = 120.0  # many processes on few cores
_LEAST_CALLS = 3
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """A race.

    Attributes:
        job: `change` (promote and roll back) or `claim`.
        uri: of the store.
        folder: for the reports; empty.
        writers: processes of the job; one more watches `champion.json` during `change`.
        seconds: how long `change` goes on; every writer makes a few calls however slow they are.
        kills: how many writers are killed meanwhile, each followed by a fresh one.
    """

    job: str
    uri: str
    folder: str
    writers: int = 16
    seconds: float = 3.0
    kills: int = 0


def race(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """Run the race in processes of its own and return what each was told, by its name."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.racing", json.dumps(asdict(plan))],
        capture_output=True,
        text=True,
        check=False,
        timeout=plan.seconds + 300,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(Path(plan.folder).glob("*.jsonl"))
    }


def change_champion(store: ObjectStore, name: str, end_s: float, report: Report) -> None:
    """Promote and roll back at random, a few times and until `end_s` of the monotonic clock."""
    registry, rng = Registry(store, STUDY), random.Random(name)  # noqa: S311 - no secret
    versions = registry.versions()
    for number in count():
        if number >= _LEAST_CALLS and time.monotonic() >= end_s:
            return
        who = f"{name}/{number}"
        wanted = None if rng.random() < 0.4 else rng.choice(versions)
        try:
            if wanted is None:
                change = registry.rollback(who, "It is slow.", NOW)
            else:
                change = registry.promote(wanted, who, "It is better.", NOW)
        except NotFoundError as error:
            if wanted is not None:  # only a rollback may find nothing
                raise
            report({"who": who, "refused": error.message})
            continue
        report({"who": who, "wanted": wanted, "number": change.number, "is_new": change.is_new})


def watch_champion(store: ObjectStore, is_over: Callable[[], bool], report: Report) -> None:
    """Read `champion.json` as a consumer does, again and again, and follow it to the file."""
    registry, last, changes = Registry(store, STUDY), 0, 0
    for reads in count(1):
        last_time = is_over()
        key = f"models/{STUDY}/champion.json"
        champion = parse_record(Champion, store.get(key).data, key)
        data = store.get(f"models/{STUDY}/{champion.uri}").data
        assert hashlib.sha256(data).hexdigest() == champion.sha256
        assert registry.manifest(champion.version).files[MODEL_FILE].sha256 == champion.sha256
        assert champion.promotion >= last, f"{champion.promotion} after {last}"
        changes, last = changes + (champion.promotion > last), champion.promotion
        if last_time:
            report({"reads": reads, "changes": changes})
            return


def claim_versions(store: ObjectStore, name: str, report: Report) -> None:
    """Claim versions for four runs of one's own and, in between, for four that all share."""
    registry = Registry(store, STUDY)
    for number in range(4):
        for run in (f"{name}/{number}", f"shared/{number}"):
            report({"run": run, "version": registry.claim_version(run)})


class Race:
    """The processes of one race; those of the beginning wait until all are connected."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._context = multiprocessing.get_context("fork")
        watchers = int(plan.job == "change")
        self._over = self._context.Event()  # the writers are through
        self._ready = self._context.Barrier(plan.writers + watchers + 1)
        self._writers = [self._start(f"writer-{rank}", None) for rank in range(plan.writers)]
        self._watchers = [self._start("watcher", None) for _ in range(watchers)]

    def run(self) -> None:
        """Let the race begin, kill some, and wait for all."""
        self._ready.wait(_CONNECTED_S)
        end_s, rng = time.monotonic() + self._plan.seconds, random.Random(0)  # noqa: S311
        for kill in range(self._plan.kills):
            time.sleep(self._plan.seconds / (self._plan.kills + 2))
            rank = rng.randrange(self._plan.writers)
            self._writers[rank].kill()
            self._writers[rank].join()
            self._writers[rank] = self._start(f"heir-{kill}", end_s)
        for process in self._writers:
            process.join()
        self._over.set()
        for process in self._watchers:
            process.join()
        for process in (*self._writers, *self._watchers):
            assert process.exitcode == 0, f"{process.name} ended with {process.exitcode}"

    def _start(self, name: str, end_s: float | None) -> ForkProcess:
        process = self._context.Process(target=self._work, args=(name, end_s), name=name)
        process.start()
        return process

    def _work(self, name: str, end_s: float | None) -> None:
        store = open_store(self._plan.uri)
        Registry(store, STUDY).versions()  # connects
        if end_s is None:
            self._ready.wait(_CONNECTED_S)
            end_s = time.monotonic() + self._plan.seconds
        with (Path(self._plan.folder) / f"{name}.jsonl").open("a", buffering=1) as file:

            def report(document: dict[str, Any]) -> None:
                file.write(json.dumps(document) + "\n")

            if name == "watcher":
                watch_champion(store, self._over.is_set, report)
            elif self._plan.job == "change":
                change_champion(store, name, end_s, report)
            else:
                claim_versions(store, name, report)


def main(plan: Plan) -> None:
    """Run the race in this process's children."""
    if plan.uri.startswith("s3://"):
        import boto3  # noqa: F401 - before the forks
    Race(plan).run()


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
