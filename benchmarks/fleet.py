"""Claims of many workers at once: how many a second, how long each waits, and whether all count.

`make bench-fleet` prints a table and writes `benchmarks/out/fleet.json`. The log, the leases, the
servers and what a worker does with them are the platform's own; only the trainings are simulated,
and the candidates are of a search space that costs nothing. Workers are threads of some processes,
each with connections of its own, as processes on many hosts have.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from automl.domain.events import Event, TrialClaimed, TrialFinished, TrialProposed
from automl.domain.invariants import violations
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.study import Run
from automl.domain.trial import Measurement, Outcome, Trial
from automl.errors import StaleWriteError
from automl.runs.context import StepContext
from automl.runs.training import TrialTraining
from automl.runs.trials import TrialResult, TrialSource
from automl.runs.worker import work_on
from automl.search.memory_model import MemoryBound
from automl.steps.study_file import study_spec
from automl.storage.leases import KeepAlive
from automl.storage.open import open_home
from automl.storage.study_log import StudyLog
from benchmarks.storage import TextSpace, backends
from benchmarks.studies import RUN, run_opened

OUT = Path(__file__).parent / "out" / "fleet.json"
STUDY = "fleet"
_POLL_S = 1.0  # as a worker waits that finds no trial to start
_PROCESSES = 16  # at most, whatever the number of workers
_READY_S = 300.0
_ready: Barrier | None = None  # of this process


@dataclass(frozen=True, slots=True)
class Fleet:
    """Fleet of simulated workers.

    Attributes:
        workers: how many work at once.
        trials: how many the run has.
        training_s: median time of a training, log-normal with a deviation of 1; 0 for none.
    """

    workers: int
    trials: int
    training_s: float = 0.0

    @property
    def spec(self) -> StudySpec:
        """The study; its source is never read."""
        return study_spec(
            {
                "name": STUDY,
                "task": "image_classification",
                "data": {"source": "/nowhere.csv"},
                "search": {"strategy": "random", "max_trials": self.trials},
            }
        )


@dataclass(frozen=True, slots=True)
class _Simulated:
    """Trainer whose trainings take a time that their number decides, and score at random."""

    training_s: float

    def train(self, trial: Trial, training: TrialTraining, alive: KeepAlive) -> TrialResult:
        rng = np.random.default_rng(trial.number)
        if self.training_s:
            time.sleep(self.training_s * math.exp(rng.normal()))
        score = float(rng.random())
        measured = Measurement(score=score, error=0.01, loss=-score, epochs=1)
        return TrialResult(Outcome.COMPLETED, measured, "")


class _CountingLog:
    """A study log that counts appends and those that came too late."""

    def __init__(self, inner: StudyLog) -> None:
        self._inner = inner
        self.appends = self.lost = 0

    def read(self, after: int = -1) -> Sequence[tuple[int, Event]]:
        """Return the events of later versions."""
        return self._inner.read(after)

    def append(self, events: Sequence[Event], *, expected_version: int) -> int:
        """Add events unless the log has grown."""
        self.appends += 1
        try:
            return self._inner.append(events, expected_version=expected_version)
        except StaleWriteError:
            self.lost += 1
            raise


@dataclass(frozen=True, slots=True)
class _Share:
    """Part of a fleet that one process has.

    Attributes:
        claims: when each claim was made and how long it took, in seconds.
        appends: how often its workers tried to append to the log.
        lost: how often they came too late.
        cpu_s: processor time of the process.
    """

    claims: list[tuple[float, float]]
    appends: int
    lost: int
    cpu_s: float


def run_fleet(settings: Settings, fleet: Fleet) -> dict[str, Any]:
    """Let a fleet search an empty study to its end, in processes of its own.

    Returns:
        Claims per second, percentiles of what a claim took, and what it cost.

    Raises:
        subprocess.CalledProcessError: a worker failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fleet", "--only", json.dumps(asdict(fleet))],
        env=settings.child_environment(os.environ),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _search(settings: Settings, fleet: Fleet) -> dict[str, Any]:
    """Let a fleet search; this process must have no threads, since it is forked."""
    if settings.home.startswith("s3://"):
        import boto3  # noqa: F401 - before the forks
    open_home(settings).study_log(STUDY).append(
        [run_opened(fleet.spec, {"image_size": 32, "classes": 10})], expected_version=-1
    )
    processes = min(_PROCESSES, fleet.workers)
    context = get_context("fork")
    ready = context.Barrier(processes + 1)
    shares = np.array_split(np.arange(fleet.workers), processes)
    with context.Pool(processes, _wait_for, [ready]) as pool:
        jobs = [(settings, fleet, share.tolist()) for share in shares]
        found = pool.map_async(_work_many, jobs, chunksize=1)
        ready.wait(_READY_S)
        began_s = time.perf_counter()
        return _summed(fleet, found.get(), began_s)


def _wait_for(ready: Barrier) -> None:
    """Let workers of this process begin with those of the others."""
    global _ready
    _ready = ready


def _summed(fleet: Fleet, parts: Sequence[_Share], began_s: float) -> dict[str, Any]:
    claims = [claim for part in parts for claim in part.claims]
    ended_s = max(at_s for at_s, _ in claims)
    waits_ms = [1000 * taken_s for _, taken_s in claims]
    return {
        **asdict(fleet),
        "claims": len(claims),
        "claims_per_s": len(claims) / (ended_s - began_s),
        "p50_ms": float(np.percentile(waits_ms, 50)),
        "p99_ms": float(np.percentile(waits_ms, 99)),
        "most_ms": max(waits_ms),
        "appends_per_claim": sum(part.appends for part in parts) / len(claims),
        "lost_per_claim": sum(part.lost for part in parts) / len(claims),
        "cpu_ms_per_claim": 1000 * sum(part.cpu_s for part in parts) / len(claims),
    }


def _work_many(job: tuple[Settings, Fleet, list[int]]) -> _Share:
    """Let some workers search."""
    settings, fleet, names = job
    assert _ready is not None
    with ThreadPoolExecutor(len(names)) as pool:
        contexts = list(pool.map(lambda _: _connected(settings, fleet), names))
        logs = [_CountingLog(context.record.log) for context in contexts]
        for context, log in zip(contexts, logs, strict=True):
            context.record.log = log
        _ready.wait(_READY_S)
        began_s = time.process_time()
        claims = list(pool.map(lambda name, context: _work(context, fleet, name), names, contexts))
    return _Share(
        [claim for each in claims for claim in each],
        sum(log.appends for log in logs),
        sum(log.lost for log in logs),
        time.process_time() - began_s,
    )


def _connected(settings: Settings, fleet: Fleet) -> StepContext:
    """Return what a worker works with, which has asked the log and the clock once."""
    context = StepContext.open(settings, fleet.spec, RUN, "benchmark")
    context.record.refresh()
    context.clock.now()
    return context


def _work(context: StepContext, fleet: Fleet, name: int) -> list[tuple[float, float]]:
    source = TrialSource(context, f"{RUN}/{name}", _space_of)
    trainer, training = _Simulated(fleet.training_s), TrialTraining(str(name), lambda: None)
    claims = []
    while True:
        asked_s = time.perf_counter()
        claim = source.take()
        if claim is not None:
            claims.append((time.perf_counter(), time.perf_counter() - asked_s))
            work_on(context, trainer, claim, training)
        elif context.opened_run().is_searching:
            time.sleep(_POLL_S)
        else:
            return claims


def _space_of(run: Run, memory: MemoryBound | None) -> TextSpace:
    return TextSpace()


def faults(settings: Settings, fleet: Fleet) -> list[str]:
    """Return the faults of the log of a fleet's study: what is lost, doubled or not allowed."""
    events = open_home(settings).study_log(STUDY).read()
    wanted = Counter(range(fleet.trials))
    found: dict[str, Counter[int]] = {
        kind.__name__: Counter(event.n for _, event in events if isinstance(event, kind))
        for kind in (TrialProposed, TrialClaimed, TrialFinished)
    }
    wrong = [
        f"{kind}: {dict(numbers - wanted)} too often, {dict(wanted - numbers)} missing"
        for kind, numbers in found.items()
        if numbers != wanted
    ]
    identities = {e.candidate.identity for _, e in events if isinstance(e, TrialProposed)}
    if len(identities) != fleet.trials:
        wrong.append(f"{fleet.trials - len(identities)} candidates were proposed twice")
    return wrong + violations(events)


def measured(
    make: Callable[[], Settings], fleets: Sequence[Fleet], show: Callable[[Mapping[str, Any]], None]
) -> list[dict[str, Any]]:
    """Return what fleets were like, each on a home of its own.

    Raises:
        AssertionError: a trial was lost or doubled.
    """
    rows = []
    for fleet in fleets:
        settings = make()
        row = run_fleet(settings, fleet)
        wrong = faults(settings, fleet)
        assert wrong == [], wrong[:5]
        show(row)
        rows.append(row)
    return rows


def _show(backend: str, row: Mapping[str, Any]) -> None:
    print(
        f"{backend:9} {row['workers']:4} workers, {row['trials']:5} trials of {row['training_s']:g}"
        f" s: {row['claims_per_s']:6.1f} claims/s, p50 {row['p50_ms']:7.0f} ms, "
        f"p99 {row['p99_ms']:7.0f} ms, most {row['most_ms']:7.0f} ms; per claim "
        f"{row['lost_per_claim']:5.1f} lost races, {row['cpu_ms_per_claim']:5.0f} ms of CPU",
        flush=True,
    )


def main(arguments: Sequence[str]) -> None:
    """Measure, print a table and write it to `OUT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["file", "s3", "postgres"])
    parser.add_argument("--workers", nargs="+", type=int, default=[16, 64, 256])
    parser.add_argument("--trials", type=int, default=1024)
    parser.add_argument("--training", type=float, default=0.0, help="median seconds of a training")
    parser.add_argument("--most-on-s3", type=int, default=64)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        fleet = Fleet(**json.loads(options.only))
        print(json.dumps(_search(Settings.from_environment(), fleet)))
        return
    found: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg(),
        "rows": [],
    }
    with backends(options.backends) as makers:
        for backend, make in makers.items():
            most = options.most_on_s3 if backend == "s3" else max(options.workers)
            fleets = [
                Fleet(workers, options.trials, options.training)
                for workers in options.workers
                if workers <= most
            ]

            def show(row: Mapping[str, Any], backend: str = backend) -> None:
                _show(backend, row)
                found["rows"].append({"backend": backend, **row})
                OUT.parent.mkdir(exist_ok=True)
                OUT.write_text(json.dumps(found, indent=1) + "\n")

            measured(make, fleets, show)
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
