"""The end of a search: on time whatever a worker computes, and with what was begun."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from automl.domain.events import (
    Event,
    SearchEnd,
    SearchEnded,
    TrialClaimed,
    TrialOpened,
    TrialProposed,
    TrialReleased,
)
from automl.domain.settings import Settings
from automl.domain.training import StopReason
from automl.domain.trial import Outcome, TrialState
from automl.machine.signals import StopSignal
from automl.runs import opening
from automl.runs.choice import LEFT_BEHIND
from automl.runs.context import StepContext, StoreClock
from automl.runs.deadline import WorkerClock
from automl.runs.trials import TrialResult, record_result
from automl.runs.worker import run_worker
from automl.steps import choose, prepare
from tests.digits import study_of_digits


class LaterClock(StoreClock):
    """The store's clock, some time from now."""

    def __init__(self, clock: StoreClock, later: timedelta) -> None:
        self._clock, self._later = clock, later

    def now(self) -> datetime:
        return self._clock.now() + self._later


class StopAfterTheFirstEpoch(logging.Handler):
    """Sets the stop signal when a worker says that it has finished an epoch."""

    def __init__(self, stop: StopSignal) -> None:
        super().__init__(logging.INFO)
        self._stop = stop

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("epoch 0:"):
            self._stop.set()


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    """A run of a minute, opened just now, on 300 digits."""
    spec = study_of_digits(tmp_path, 300, search={"time_limit": "60s", "workers": 1}, final_fit={})
    context = StepContext.open(Settings(str(tmp_path / "home")), spec, "one", "test")
    snapshot = prepare.prepare(context, lambda done, total, what: None)
    opening.open_run(context, snapshot.id)
    return context


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    """A signal that a worker gets after its first epoch."""
    stop, logger = StopSignal(), logging.getLogger("automl")
    handler, level = StopAfterTheFirstEpoch(stop), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stop
    logger.removeHandler(handler)
    logger.setLevel(level)


def after_the_deadline(context: StepContext) -> StepContext:
    return dataclasses.replace(context, clock=LaterClock(context.clock, timedelta(seconds=61)))


def search_ends(context: StepContext) -> list[SearchEnded]:
    return [event for _, event in context.record.log.read() if isinstance(event, SearchEnded)]


def test_a_trial_that_waits_at_the_deadline_counts_with_its_best_weights(
    context: StepContext, stop: StopSignal
) -> None:
    assert run_worker(context, 0, stop).state == "slice_ended"
    (waiting,) = context.record.refresh().trials
    assert waiting.state is TrialState.PROPOSED

    report = run_worker(after_the_deadline(context), 0, StopSignal())

    (trial,) = context.record.refresh().trials
    assert (report.state, report.trials) == ("search_ended", [0])
    assert trial.outcome is Outcome.TIMED_OUT
    assert (trial.measurement.epochs, trial.measurement.resumed_at) == (1, 1)
    assert [end.reason for end in search_ends(context)] == [SearchEnd.DEADLINE]
    assert choose.choose(after_the_deadline(context)).trial == 0


def test_a_trial_that_a_failed_worker_left_is_given_back_with_the_choice(
    context: StepContext, stop: StopSignal
) -> None:
    run_worker(context, 0, stop)
    (first,) = context.record.refresh().trials
    assert first.candidate is not None
    at = context.clock.now()
    lost: list[Event] = [
        TrialOpened(at=at, n=1, run="one", worker="one/1"),
        TrialProposed(at=at, n=1, candidate=first.candidate, based_on=0, strategy="random"),
        TrialClaimed(at=at, n=1, attempt=1, run="one", worker="one/1"),
    ]
    context.record.commit(lambda _: lost)
    assert context.leases.acquire("1", "one/1") is not None  # it may live: nobody takes the trial
    run_worker(after_the_deadline(context), 0, StopSignal())

    for _ in range(2):
        assert choose.choose(after_the_deadline(context)).trial == 0

    events = [event for _, event in context.record.log.read()]
    released = [(e.n, e.reason) for e in events if isinstance(e, TrialReleased)]
    assert released[1:] == [(1, LEFT_BEHIND)]  # the first was that of the end of the slice
    trial = context.record.refresh().trials[1]
    assert (trial.state, trial.outcome, trial.attempt) == (TrialState.PROPOSED, None, 1)
    late = TrialResult(Outcome.COMPLETED, first.measurement, "")
    assert record_result(context, dataclasses.replace(trial), late).outcome is None


def test_a_worker_that_comes_late_ends_the_search_without_a_trial(context: StepContext) -> None:
    report = run_worker(after_the_deadline(context), 0, StopSignal())

    assert (report.state, report.trials) == ("search_ended", [])
    assert [end.reason for end in search_ends(context)] == [SearchEnd.DEADLINE]
    assert context.record.refresh().trials == ()


def test_a_worker_asked_to_stop_leaves_what_waits_to_the_next(
    context: StepContext, stop: StopSignal
) -> None:
    run_worker(context, 0, stop)

    run_worker(after_the_deadline(context), 0, stop)

    (trial,) = context.record.refresh().trials
    assert trial.state is TrialState.PROPOSED
    assert trial.attempt == 1


def test_no_begun_trial_is_taken_once_the_winner_is_chosen(
    context: StepContext, stop: StopSignal
) -> None:
    run_worker(context, 0, stop)
    late = after_the_deadline(context)
    run_worker(late, 0, StopSignal())
    choose.choose(late)
    before = context.record.refresh()

    assert run_worker(late, 1, StopSignal()).trials == []
    assert context.record.refresh() == before


def test_a_search_ends_on_time_while_its_worker_computes(context: StepContext) -> None:
    deadline = context.clock.now() + timedelta(seconds=1)

    with WorkerClock(context, deadline, StopSignal(), None) as clock:
        time.sleep(2.5)  # as if an epoch were evaluated
        assert clock.stop_reason() is StopReason.DEADLINE

    (end,) = search_ends(context)
    assert end.reason is SearchEnd.DEADLINE
    assert timedelta(0) <= end.at - deadline <= timedelta(seconds=1.5)


def test_a_worker_that_leaves_early_ends_no_search(context: StepContext) -> None:
    with WorkerClock(context, context.clock.now() + timedelta(hours=1), StopSignal(), None):
        pass

    assert search_ends(context) == []


def test_a_slice_ends_but_not_shortly_before_the_deadline(context: StepContext) -> None:
    now = context.clock.now()
    reasons = []
    for left_s in (60, 8):
        with WorkerClock(context, now + timedelta(seconds=left_s), StopSignal(), 0.0) as clock:
            reasons.append(clock.stop_reason())

    assert reasons == [StopReason.SLICE, None]
