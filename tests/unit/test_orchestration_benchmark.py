"""The benchmark of orchestration: its figures, and trainings that sleep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from automl.domain.candidate import Candidate
from automl.domain.events import (
    Event,
    RunOpened,
    SearchEnd,
    SearchEnded,
    TrialClaimed,
    TrialFinished,
)
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Measurement, Outcome
from automl.search.budget import TimeBudget
from automl.tracks.track import Ancestor, Checkpoint, Job
from benchmarks.orchestration import figures
from benchmarks.sleeping.track import Anything, Sleeper

AT = datetime(2026, 1, 1, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def search(overhead_s: float) -> Iterator[tuple[int, Event]]:
    """Yield the log of two workers, of ten trials of a second each, the second one 3 s late."""
    opened = RunOpened(
        at=AT, run="a", deadline=after(99), snapshot="s", spec_hash="h", generation_key="k",
        spec={}, origin="test",
    )  # fmt: skip
    events: list[Event] = [opened]
    for worker, start_s in (("a/0", 2.0), ("a/1", 5.0)):
        for place in range(10):
            n, claimed_s = len(events) // 2, start_s + place * (1 + overhead_s)
            claimed = TrialClaimed(at=after(claimed_s), n=n, attempt=1, run="a", worker=worker)
            measured = Measurement(score=0.5, loss=0.5, seconds=1.0)
            finished = TrialFinished(
                at=after(claimed_s + 1), n=n, attempt=1, run="a", outcome=Outcome.COMPLETED,
                measurement=measured,
            )  # fmt: skip
            events += [claimed, finished]
    events.append(SearchEnded(at=after(20), run="a", reason=SearchEnd.MAX_TRIALS))
    yield from enumerate(events)


def test_the_figures_of_a_search() -> None:
    found = figures(search(overhead_s=0.25), slots=2)

    assert (found["trials"], found["workers"], found["search_s"]) == (20, 2, 20.0)
    assert found["first_claims_s"] == [2.0, 5.0]
    assert found["busy"] == pytest.approx(20 / (2 * 20))
    assert found["between_s"] == pytest.approx(0.25)
    last_s = 5 + 9 * 1.25 + 1
    assert found["wall_s"] == pytest.approx((2 * (last_s - 2) - 20) / 20)


class Outside:
    """Hooks that stop a training after a while, and keep what it saves."""

    def __init__(self, naps: float = float("inf"), reason: StopReason | None = None) -> None:
        self.left, self.reason = naps, reason
        self.saved: list[bytes] = []

    def stop(self) -> StopReason | None:
        self.left -= 1
        return self.reason if self.left < 0 else None

    def resumed(self, curve: Sequence[CurvePoint]) -> None:
        return

    def reached(self, point: CurvePoint) -> StopReason | None:
        return None

    def plan(self, first: CurvePoint) -> int | None:
        return None

    def save(self, position: int, checkpoint: bytes) -> None:
        self.saved.append(checkpoint)


def job(number: int, checkpoints: Sequence[bytes] = ()) -> Job:
    candidate = Candidate(genotype="{}", hyperparameters={})
    kept = [Checkpoint("key", data) for data in checkpoints]
    lineage = (Ancestor(number, candidate, None, Measurement()),)
    return Job(lineage, (0, number), None, kept, TimeBudget(60.0))


def test_a_trial_sleeps_as_long_as_its_row_says() -> None:
    sleeper = Sleeper(np.array([0.3, 0.02]))

    for number, wanted_s in ((0, 0.3), (1, 0.02), (3, 0.02)):
        fitted = sleeper.fit(job(number), Outside())
        assert fitted.stopped is None
        assert wanted_s <= fitted.measurement.seconds < wanted_s + 0.2


def test_a_slice_that_ends_is_gone_on_from() -> None:
    sleeper, first = Sleeper(np.array([0.4])), Outside(2, StopReason.SLICE)

    assert sleeper.fit(job(0), first).stopped is StopReason.SLICE
    fitted = sleeper.fit(job(0, first.saved), Outside())

    assert fitted.stopped is None
    assert 0.4 <= fitted.measurement.seconds < 0.6


def test_no_two_candidates_are_equal() -> None:
    space, rng = Anything(), np.random.default_rng(0)

    assert len({space.sample([], rng).identity for _ in range(100)}) == 100
