"""Worker processes that have too little time, are frozen, or whose clocks are wrong."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from automl.domain.events import SearchEnd, TrialClaimed, TrialFinished
from automl.domain.invariants import violations
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.study import Study
from automl.domain.trial import Outcome
from automl.machine.process import StepResult, run_step
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.steps import prepare
from tests.digits import sizes_of, study_of_digits
from tests.quiet import Quiet
from tests.worker_child import READY

TTL_S = 8.0  # of the leases of trials, where a test waits for one to run out
APART_S = 300.0
_WITHIN_S = 90.0


class Workers:
    """Worker processes of one run, and what they say.

    Args:
        context: the run's context.
    """

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor()
        self.lines: dict[int, list[tuple[datetime, str]]] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()

    def start(self, index: int, environment: Mapping[str, str]) -> Future[StepResult]:
        """Start worker `index` and return its end to come."""
        lines = self.lines.setdefault(index, [])
        context = self._context
        return self._pool.submit(
            run_step,
            "run_worker",
            {
                "spec": context.spec.model_dump(mode="json", by_alias=True),
                "run": context.run,
                "worker": index,
                "origin": "test",
            },
            env={**os.environ, "AUTOML_HOME": context.settings.home, "TZ": "UTC", **environment},
            timeout_s=3 * _WITHIN_S,
            on_line=lambda line: lines.append((datetime.now(UTC), line)),
            stop=self._over.is_set,
            module="tests.worker_child",
        )

    def wait_for(self, index: int, pattern: str) -> tuple[datetime, str]:
        """Return the first line of worker `index` that the pattern fits, and when it came."""
        limit_s = time.monotonic() + _WITHIN_S
        while time.monotonic() < limit_s:
            for when, line in list(self.lines.get(index, ())):
                if re.search(pattern, line):
                    return when, line
            time.sleep(0.02)
        pytest.fail(f"worker {index} does not say {pattern!r}: {self.lines.get(index)}")


def opened(uri: str, spec: StudySpec) -> StepContext:
    return StepContext.open(Settings(uri), spec, "one", "test")


def open_run(context: StepContext) -> None:
    manifest = prepare.prepare(context, Quiet().items)
    opening.open_run(context, manifest.id, sizes_of(context, manifest.id))


def claims_in(context: StepContext) -> list[TrialClaimed]:
    return [event for _, event in context.record.log.read() if isinstance(event, TrialClaimed)]


def test_a_search_ends_on_time_with_its_trial_timed_out(tmp_path: Path) -> None:
    limit_s = 15  # its worker needs some of it to load the images
    spec = study_of_digits(
        tmp_path,
        rows=400,
        data={"source": str(tmp_path / "rows.npz"), "image_size": 256},  # minutes per trial
        search={"time_limit": f"{limit_s}s", "workers": 1, "max_trials": 9},
    )
    context = opened(str(tmp_path / "home"), spec)
    with Workers(context) as workers:
        end = workers.start(0, {})
        workers.wait_for(0, READY)
        with RunLease(context):
            open_run(context)
            result = end.result()

    assert result.failure is None
    study = context.record.refresh()
    assert study.runs[0].search_end is SearchEnd.DEADLINE
    assert limit_s - 3 <= searched_s(study) <= limit_s + 5
    assert study.trials[-1].outcome is Outcome.TIMED_OUT
    assert "deadline" in study.trials[-1].cause


def searched_s(study: Study) -> float:
    """Return how long the search of a study's only run took."""
    (run,) = study.runs
    assert run.search_ended_at is not None
    return (run.search_ended_at - run.opened_at) / timedelta(seconds=1)


def test_what_a_frozen_worker_writes_after_a_takeover_does_not_count(tmp_path: Path) -> None:
    spec = study_of_digits(
        tmp_path, rows=600, search={"time_limit": "5m", "max_trials": 1, "workers": 2}
    )
    context = opened(str(tmp_path / "home"), spec)
    open_run(context)
    brief = {"TEST_LEASE_TTL_S": str(TTL_S)}
    with RunLease(context), Workers(context) as workers:
        first = workers.start(0, brief)
        workers.wait_for(0, "epoch 2:")
        (frozen,) = [p.pid for p in psutil.Process().children() if "run_worker" in p.cmdline()]
        os.kill(frozen, signal.SIGSTOP)
        try:
            (before,) = context.record.refresh().trials
            second = workers.start(1, brief)
            workers.wait_for(1, r"trial 0 resumes at epoch \d")
            time.sleep(0.1)  # so that later files can be told by their times
            said = len(workers.lines[0])
        finally:
            os.kill(frozen, signal.SIGCONT)
        results = first.result(), second.result()

    assert [result.failure for result in results] == [None, None]
    assert [result.result["state"] for result in results] == ["search_ended"] * 2
    late = "\n".join(line for _, line in workers.lines[0][said:])
    assert re.search(rf"trial 0, attempt {before.attempt}: The lease .* is lost", late), late
    assert f"trial 0: attempt {before.attempt} came too late" in late
    assert_only_the_last_attempt_counts(context)
    assert_taken_over_from_what_was_stored(context, before.attempt)
    assert violations(context.record.log.read()) == []


def assert_only_the_last_attempt_counts(context: StepContext) -> None:
    (trial,) = context.record.refresh().trials
    (end,) = [e for _, e in context.record.log.read() if isinstance(e, TrialFinished)]
    assert trial.outcome is Outcome.COMPLETED
    assert end.attempt == trial.attempt
    weights = context.keys.trial(0, trial.attempt).weights
    assert trial.measurement.weights == weights


def assert_taken_over_from_what_was_stored(context: StepContext, attempt: int) -> None:
    """The next attempt began with what this one had stored, of which one file may come late."""
    (takeover,) = [claim for claim in claims_in(context) if claim.attempt == attempt + 1]
    folder = context.keys.trial(0, attempt).folder
    assert takeover.worker == "one/1"
    assert takeover.checkpoint is not None
    assert takeover.checkpoint.startswith(f"{folder}/checkpoint-")
    files = context.store.list(f"{folder}/")
    assert len([file for file in files if file.modified > takeover.at]) <= 1


def faketime(shift_s: float) -> dict[str, str]:
    """Return variables with which a process sees a clock that is `shift_s` ahead.

    Its monotonic clock and the times of files stay as they are.
    """
    (library,) = [
        str(file.locate())
        for file in importlib.metadata.files("libfaketime") or ()
        if file.name == "libfaketime.so.1"
    ]
    return {
        "LD_PRELOAD": library,
        "FAKETIME": f"{shift_s:+g}",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_workers_whose_clocks_are_five_minutes_apart_share_a_study(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home = str(tmp_path / "home") if kind == "file" else request.getfixturevalue("s3_store_uri")
    limit_s = 20  # a busy machine takes half of it until the first trial of either starts
    spec = study_of_digits(tmp_path, rows=600, search={"time_limit": f"{limit_s}s", "workers": 2})
    context = opened(home, spec)
    shifts = {0: -APART_S / 2, 1: APART_S / 2}
    with Workers(context) as workers:
        ends = [workers.start(index, faketime(shift)) for index, shift in shifts.items()]
        for index in shifts:
            workers.wait_for(index, READY)
        with RunLease(context):
            open_run(context)
            results = [end.result() for end in ends]

    for index, shift in shifts.items():
        assert clock_ahead_s(*workers.wait_for(index, "trial .* starts")) == pytest.approx(
            shift, abs=30
        )
    assert [result.failure for result in results] == [None, None]
    study = context.record.refresh()
    assert study.runs[0].search_end is SearchEnd.DEADLINE
    assert limit_s - 10 <= searched_s(study) <= limit_s + 5
    outcomes = {trial.outcome for trial in study.trials}
    own = {Outcome.COMPLETED, Outcome.PRUNED, Outcome.TIMED_OUT}
    assert outcomes <= own, "a trial was lost"
    claims = claims_in(context)
    assert {claim.worker for claim in claims} == {"one/0", "one/1"}
    assert set(Counter(claim.n for claim in claims).values()) == {1}, "a trial was trained twice"
    assert violations(context.record.log.read()) == []


def clock_ahead_s(came: datetime, line: str) -> float:
    """Return by how much the clock that stamped a log line is ahead of this process's."""
    stamp = datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return (stamp - came) / timedelta(seconds=1)
