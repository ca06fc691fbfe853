"""Each thing that may never happen to a log is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from automl.domain.candidate import Candidate
from automl.domain.events import (
    Event,
    RunClosed,
    RungReached,
    RunOpened,
    RunReopened,
    RunState,
    SearchEnd,
    SearchEnded,
    StudyGiven,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
    TrialReleased,
    WinnerChosen,
)
from automl.domain.invariants import violations
from automl.domain.trial import Measurement, Outcome

AT = datetime(2026, 1, 1, tzinfo=UTC)


def opened(run: str = "a", **search: Any) -> RunOpened:
    return RunOpened(
        at=AT, run=run, deadline=AT + timedelta(hours=1), snapshot="s", spec_hash="h",
        generation_key="k", spec={"search": search}, origin="test",
    )  # fmt: skip


def closed(run: str = "a", state: RunState = RunState.ABANDONED) -> RunClosed:
    return RunClosed(at=AT, run=run, state=state)


def reopened(run: str = "a", deadline: datetime | None = AT) -> RunReopened:
    return RunReopened(at=AT, run=run, deadline=deadline)


def ticket(n: int = 0, run: str = "a") -> TrialOpened:
    return TrialOpened(at=AT, n=n, run=run, worker="w")


def proposed(n: int = 0, genotype: str = "{}", based_on: int = 1) -> TrialProposed:
    candidate = Candidate(genotype=genotype, hyperparameters={})
    return TrialProposed(at=AT, n=n, candidate=candidate, based_on=based_on, strategy="random")


def claimed(attempt: int = 1, n: int = 0, run: str = "a") -> TrialClaimed:
    return TrialClaimed(at=AT, n=n, attempt=attempt, run=run, worker="w")


def released(attempt: int = 1, n: int = 0) -> TrialReleased:
    return TrialReleased(at=AT, n=n, attempt=attempt, reason="slice")


def finished(attempt: int = 1, n: int = 0, run: str = "a") -> TrialFinished:
    return TrialFinished(
        at=AT, n=n, attempt=attempt, run=run, outcome=Outcome.COMPLETED, measurement=Measurement()
    )


def reached(rung: int = 1, epochs: int = 3, planned: int = 9, *, attempt: int = 1) -> RungReached:
    return RungReached(
        at=AT, n=0, attempt=attempt, run="a", rung=rung, epochs=epochs, planned=planned, loss=0.0,
        score=0.0, error=0.0, log_loss=0.0,
    )  # fmt: skip


def ended(run: str = "a") -> SearchEnded:
    return SearchEnded(at=AT, run=run, reason=SearchEnd.DEADLINE)


def chosen(trial: int = 0) -> WinnerChosen:
    return WinnerChosen(at=AT, run="a", trial=trial, loss=0.0)


def found(*events: Event) -> list[str]:
    return violations(enumerate(events))


def test_a_whole_log_has_no_violation() -> None:
    assert found(
        opened(), ticket(), proposed(), claimed(), reached(), released(), claimed(2),
        reached(2, 9, attempt=2), finished(2),
        ticket(1), proposed(1, "other", 9), claimed(1, 1), ended(), finished(1, 1), closed(),
        opened("b"), ticket(2, "b"), proposed(2, "third", 16), claimed(1, 2, "b"), ended("b"),
        claimed(2, 2, "b"), finished(2, 2, "b"),
    ) == []  # fmt: skip


def test_a_run_that_failed_may_be_opened_again_and_search_and_fail_once_more() -> None:
    assert found(
        opened(), StudyGiven(at=AT, owner="cli", by="mia"), ticket(), proposed(0, "x", 2),
        ended(), closed(), opened("b"), closed("b"), reopened(), claimed(), finished(), ticket(1),
        closed(), reopened("b", None), closed("b"),
    ) == []  # fmt: skip


def test_late_events_of_fenced_off_attempts_are_no_violation() -> None:
    assert found(
        opened(), ticket(), proposed(), claimed(), claimed(2), claimed(1), released(1),
        finished(1), proposed(0, "late"), reached(), reached(attempt=2), reached(attempt=2),
        finished(2), finished(2), finished(1), reached(2, 9, attempt=2),
    ) == []  # fmt: skip


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ((opened(), opened("b")), "Version 1 of the study log opens run b while a is open"),
        ((opened(), closed(), opened()), "opens run a once more"),
        ((opened(), closed(), closed()), "closes run a once more"),
        ((opened(), reopened()), "reopens run a, which is open"),
        ((opened(), closed("a", RunState.SUCCEEDED), reopened()), "reopens run a, which is succ"),
        ((opened(), closed(), opened("b"), reopened()), "opens run a while b is open"),
        ((opened(), closed(), reopened(), closed(), closed()), "closes run a once more"),
        ((opened(), ended(), closed(), reopened("a", None), ticket()), "starts trial 0 in run a"),
        ((opened(), ticket(1)), "opens trial 1 after 0 trials"),
        ((opened(), claimed()), "speaks of trial 0, which was never opened"),
        ((opened(), ended(), ticket()), "starts trial 0 in run a, which is not searching"),
        ((opened(), closed(), ticket()), "starts trial 0 in run a, which is not searching"),
        ((opened(), ticket(), claimed()), "claims trial 0, which has no candidate"),
        ((opened(), ticket(), proposed(), ended(), claimed()), "starts trial 0 in run a"),
        (
            (opened(), ticket(), proposed(), claimed(), ended(), chosen(), claimed(2)),
            "starts trial 0 in run a",
        ),
        ((opened(), ticket(), proposed(), claimed(2)), "claims attempt 2 of trial 0 after 0"),
        ((opened(), ticket(), proposed(based_on=2)), "proposes trial 0 from version 2"),
        ((opened(), ticket(), proposed(based_on=0)), "proposes trial 0 from version 0"),
        (
            (opened(), ticket(), proposed(), ticket(1), proposed(1, based_on=3)),
            "proposes for trial 1 the candidate of trial 0",
        ),
        ((opened(), ticket(), proposed(), claimed(), finished(run="z")), "in run z, never opened"),
        (
            (opened(), ticket(), proposed(), claimed(), reached(2, 9), reached()),
            "has trial 0 at rung 1 (3 epochs) after rung 2 (9 epochs)",
        ),
        (
            (opened(), ticket(), proposed(), claimed(), reached(), reached(2, 3)),
            "has trial 0 at rung 2 (3 epochs) after rung 1 (3 epochs)",
        ),
        (
            (opened(), ticket(), proposed(), claimed(), reached(), reached(2, 4, 10)),
            "plans 10 epochs for trial 0 after 9",
        ),
        (
            (opened(), ticket(), proposed(), claimed(), reached(epochs=10)),
            "has trial 0 at epoch 10 of 9",
        ),
        (
            (opened(), ticket(), proposed(), claimed(), reached().model_copy(update={"share": 0})),
            "has trial 0 with 0 of its training done",
        ),
        (
            (
                opened(max_trials=1), ticket(), proposed(), claimed(), finished(),
                ticket(1), proposed(1, "other", 5), claimed(1, 1), finished(1, 1),
            ),
            "ends more than 1 trials in run a",
        ),
    ],
)  # fmt: skip
def test_what_may_never_happen_is_named(events: Sequence[Event], words: str) -> None:
    (violation,) = found(*events)

    assert words in violation


def test_a_gap_in_the_versions_is_named() -> None:
    (violation,) = violations([(0, opened()), (2, ticket())])

    assert violation == "Version 2 of the study log follows version 0."
