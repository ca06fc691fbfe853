"""Claims: what a process that comes too late may not do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from automl.domain.events import Event, RunState, SearchEnd, TrialProposed
from automl.domain.settings import Settings
from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.errors import LeaseLostError, SearchError, StaleWriteError
from automl.runs import opening
from automl.runs.checkpoints import counting_checkpoints
from automl.runs.context import StepContext
from automl.runs.trials import Claim, TrialResult, TrialSource, record_result
from automl.steps.study_file import study_spec
from automl.steps.supervision import give_back
from automl.storage.home import ObjectHome
from automl.storage.leases import Leases
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import StoredObject
from automl.storage.study_log import StudyLog
from automl.tracks.image.space import NetworkMorphismSpace

LONG_S = 61.0  # longer than a lease lives


class Stage:
    """A study in memory, on a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.store = MemoryObjectStore(self._now)

    def _now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.elapsed_s)

    def context(
        self,
        run: str = "one",
        max_trials: int | None = None,
        store: MemoryObjectStore | None = None,
    ) -> StepContext:
        """Return what a process of the run works with; the run is open afterwards."""
        search: dict[str, object] = {"workers": 2}
        if max_trials is not None:
            search["max_trials"] = max_trials
        spec = study_spec(
            {
                "name": "tiny",
                "task": "image_classification",
                "data": {"source": "/rows.npz"},
                "search": search,
            }
        )
        home = ObjectHome(store or self.store)
        context = StepContext.open(Settings("/"), spec, run, "test", home)
        leases = Leases(home.store, "studies/tiny/leases", clock=lambda: self.elapsed_s)
        opening.open_run(context, "snapshot")
        return dataclasses.replace(context, leases=leases)


def source(context: StepContext, index: int = 0) -> TrialSource:
    return TrialSource(context, f"{context.run}/{index}", lambda *_: NetworkMorphismSpace(8, 10))


def taken(context: StepContext, index: int = 0) -> Claim:
    claim = source(context, index).take()
    assert claim is not None
    return claim


def result(score: float) -> TrialResult:
    return TrialResult(Outcome.COMPLETED, Measurement(score=score, loss=-score), "")


GIVEN_BACK = TrialResult(None, Measurement(), "slice")


@pytest.fixture
def stage() -> Stage:
    return Stage()


def taken_over(stage: Stage) -> tuple[StepContext, Claim, StepContext, Claim]:
    """Return a worker whose lease has run out, and the one that has taken its trial over."""
    zombie, heir = stage.context(), stage.context()
    old = taken(zombie, 0)
    stage.elapsed_s += LONG_S
    new = taken(heir, 1)
    assert (new.trial.number, old.trial.attempt, new.trial.attempt) == (0, 1, 2)
    return zombie, old, heir, new


@pytest.mark.parametrize("late", [result(0.1), GIVEN_BACK])
def test_what_a_fenced_off_worker_records_is_not_written(stage: Stage, late: TrialResult) -> None:
    zombie, old, heir, new = taken_over(stage)
    version = heir.record.refresh().version

    told = record_result(zombie, old.trial, late)

    assert (told.attempt, told.worker, told.state) == (2, "one/1", TrialState.CLAIMED)
    assert heir.record.refresh().version == version
    assert record_result(heir, new.trial, result(0.9)).measurement.score == 0.9
    assert record_result(zombie, old.trial, late).measurement.score == 0.9


def test_a_fenced_off_worker_cannot_renew_and_may_not_write(stage: Stage) -> None:
    _, old, _, new = taken_over(stage)

    with pytest.raises(LeaseLostError, match=r"leases/0\.json"):
        old.lease.keep_alive().check()  # its own clock tells it, before it asks the store
    with pytest.raises(LeaseLostError):
        old.lease.renew()
    new.lease.keep_alive().check()
    new.lease.renew()


class Frozen(MemoryObjectStore):
    """Stands still after it has written a lease, while `meanwhile` happens."""

    def __init__(self, stage: Stage, meanwhile: object) -> None:
        super().__init__(stage.store.now)
        self._inner, self._meanwhile = stage.store, [meanwhile]

    def get(self, key: str) -> StoredObject:
        return self._inner.get(key)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        return self._inner.put_if_match(key, data, etag)

    def put_if_absent(self, key: str, data: bytes) -> str:
        etag = self._inner.put_if_absent(key, data)
        if "/leases/" in key and self._meanwhile:
            meanwhile = self._meanwhile.pop()
            assert callable(meanwhile)
            meanwhile()
        return etag


def test_a_worker_frozen_between_lease_and_claim_lets_its_successor_be(stage: Stage) -> None:
    claims: list[Claim] = []

    def meanwhile() -> None:
        stage.elapsed_s += LONG_S
        claims.append(taken(stage.context(max_trials=1), 1))

    late = stage.context(max_trials=1, store=Frozen(stage, meanwhile))

    assert source(late, 0).take() is None
    (trial,) = late.record.refresh().trials
    assert (trial.attempt, trial.worker) == (1, "one/1")
    claims[0].lease.renew()


class Crowded:
    """A study log whose first proposal loses its race, after `meanwhile`."""

    def __init__(self, inner: StudyLog, meanwhile: Callable[[], object]) -> None:
        self._inner, self._meanwhile = inner, [meanwhile]

    def read(self, after: int = -1) -> Sequence[tuple[int, Event]]:
        return self._inner.read(after)

    def append(self, events: Sequence[Event], *, expected_version: int) -> int:
        if isinstance(events[0], TrialProposed) and self._meanwhile:
            self._meanwhile.pop()()
            raise StaleWriteError("lost", "try again")
        return self._inner.append(events, expected_version=expected_version)


def test_a_trial_is_claimed_under_a_lease_that_lives(stage: Stage) -> None:
    def freeze() -> None:
        stage.elapsed_s += LONG_S

    context = stage.context()
    context.record.log = Crowded(context.record.log, freeze)

    claim = taken(context)

    assert claim.lease.unrenewed_s == 0.0  # acquired once more, as anybody could have done
    assert (claim.trial.number, claim.trial.attempt) == (0, 1)


def test_a_lease_is_renewed_while_a_claim_waits_for_others(stage: Stage) -> None:
    context, ttl_s = stage.context(), 2.0
    leases = Leases(stage.store, "studies/tiny/leases", ttl_s)
    slow = dataclasses.replace(context, leases=leases)
    slow.record.log = Crowded(context.record.log, lambda: time.sleep(ttl_s / 2))

    claim = taken(slow)

    assert claim.lease.unrenewed_s < ttl_s / 2
    assert (claim.trial.number, claim.trial.attempt) == (0, 1)


def test_a_worker_of_a_superseded_run_takes_no_trial(stage: Stage) -> None:
    old = stage.context("one")
    stage.context("two")

    assert source(old).take() is None
    with pytest.raises(SearchError, match="two"):
        old.opened_run()
    study = old.record.refresh()
    assert study.trials == ()
    assert [run.state for run in study.runs] == [RunState.ABANDONED, RunState.OPEN]


def test_trials_left_over_by_a_run_do_not_exceed_the_next_ones_limit(stage: Stage) -> None:
    first = stage.context("one")
    for index in range(3):
        taken(first, index)
    stage.elapsed_s += LONG_S
    second = stage.context("two", max_trials=2)
    claims = [taken(second, 0), taken(second, 1)]

    assert source(second, 2).take() is None
    for claim in claims:
        record_result(second, claim.trial, result(0.5))
    assert source(second, 2).take() is None
    run = second.record.refresh().runs[-1]
    assert run.search_end is SearchEnd.MAX_TRIALS
    assert second.record.study.runs[-1].outcomes == 2


def test_a_dead_workers_trial_is_free_at_once_when_it_is_given_back(stage: Stage) -> None:
    context = stage.context(max_trials=1)
    taken(context, 0)
    assert source(context, 1).take() is None

    assert give_back(context, 0) == [0]

    assert taken(context, 1).trial.attempt == 2


def store_checkpoint(context: StepContext, trial: Trial, epoch: int) -> str:
    key = context.keys.trial(trial.number, trial.attempt).checkpoint(epoch)
    context.store.put(key, b"")
    return key


def test_a_checkpoint_that_comes_after_the_takeover_does_not_count(stage: Stage) -> None:
    context = stage.context(max_trials=1)
    first = taken(context, 0).trial
    stored = [store_checkpoint(context, first, epoch) for epoch in (8, 9)]
    stage.elapsed_s += LONG_S
    second = taken(context, 1).trial
    late = store_checkpoint(context, first, 40)
    assert counting_checkpoints(context, second) == [*reversed(stored)]

    stage.elapsed_s += LONG_S
    third = taken(context, 0).trial  # the second has stored nothing
    assert third.checkpoints == (stored[1],)
    assert counting_checkpoints(context, third) == [*reversed(stored)]

    own = store_checkpoint(context, third, 10)
    stage.elapsed_s += LONG_S
    fourth = taken(context, 1).trial
    assert fourth.checkpoints == (stored[1], own)
    assert counting_checkpoints(context, fourth) == [own, *reversed(stored)]
    assert late not in counting_checkpoints(context, fourth)


def test_an_attempt_that_began_afresh_leaves_nothing_to_those_after_it(stage: Stage) -> None:
    context = stage.context(max_trials=1)
    first = taken(context, 0).trial
    stage.elapsed_s += LONG_S
    taken(context, 1)
    store_checkpoint(context, first, 3)
    stage.elapsed_s += LONG_S

    third = taken(context, 0).trial

    assert third.checkpoints == ()
    assert counting_checkpoints(context, third) == []
