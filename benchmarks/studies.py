"""The events of made-up studies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from automl.domain.candidate import Candidate
from automl.domain.events import RunOpened, TrialClaimed, TrialFinished, TrialProposed
from automl.domain.specification import StudySpec
from automl.domain.trial import Measurement, Outcome

RUN, WORKER = "run-1", "w"


def run_opened(spec: StudySpec, space: Mapping[str, int]) -> RunOpened:
    """Return the event that opens the run, with a deadline far away."""
    now = datetime.now(UTC)
    return RunOpened(
        at=now,
        run=RUN,
        deadline=now + timedelta(days=30),
        snapshot="s",
        spec_hash=spec.spec_hash,
        generation_key=spec.generation_key,
        spec=spec.model_dump(mode="json", by_alias=True),
        origin="benchmark",
        space=dict(space),
    )


def trial_taken(
    n: int, candidate: Candidate, based_on: int, strategy: str
) -> tuple[TrialProposed, TrialClaimed]:
    """Return the events by which a worker takes trial `n`."""
    now = datetime.now(UTC)
    return (
        TrialProposed(at=now, n=n, candidate=candidate, based_on=based_on, strategy=strategy),
        TrialClaimed(at=now, n=n, attempt=1, run=RUN, worker=WORKER),
    )


def trial_completed(n: int, measurement: Measurement) -> TrialFinished:
    """Return the event that completes trial `n` in its first attempt."""
    return TrialFinished(
        at=datetime.now(UTC),
        n=n,
        attempt=1,
        run=RUN,
        outcome=Outcome.COMPLETED,
        measurement=measurement,
    )
