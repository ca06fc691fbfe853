"""The drill's schedule is drawn from its seed, and its verdict sees what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from automl.domain.events import Event, RunClosed, RunState, TrialClaimed, TrialFinished
from automl.domain.layout import StudyKeys
from automl.domain.training import CurvePoint
from automl.domain.trial import Measurement, Outcome
from automl.runs.curves import curve_to_bytes
from automl.storage.memory import MemoryObjectStore
from tests.drill.injection import Cost
from tests.drill.schedule import KINDS, RARE, draw
from tests.drill.site import Flight
from tests.drill.strikes import Strike
from tests.drill.table import rows, text
from tests.drill.verdict import Counted, Loss, counted, faults_of_log, losses
from tests.unit.test_invariants import claimed, closed, opened, proposed, ticket

AT = datetime(2026, 1, 1, tzinfo=UTC)


def ended(outcome: Outcome = Outcome.COMPLETED, cause: str = "", attempt: int = 1) -> TrialFinished:
    return TrialFinished(
        at=AT, n=0, attempt=attempt, run="a", outcome=outcome, measurement=Measurement(),
        cause=cause,
    )  # fmt: skip


def success() -> RunClosed:
    return closed(state=RunState.SUCCEEDED)


def numbered(*events: Event) -> list[tuple[int, Event]]:
    return list(enumerate(events))


BEGUN = (opened(), ticket(), proposed(), claimed())


def found(*events: Event) -> list[str]:
    return list(faults_of_log("s", numbered(*events)))


def test_a_seed_always_gives_the_same_schedule() -> None:
    assert draw(7, 30) == draw(7, 30)
    assert draw(7, 30) != draw(8, 30)


def test_each_kind_comes_and_those_that_take_minutes_come_once() -> None:
    for seed in range(20):
        kinds = [planned.kind for planned in draw(seed, 30)]
        assert len(kinds) == 30
        assert {*kinds} == {*KINDS}
        assert [kinds.count(kind) for kind in RARE] == [1] * len(RARE)


def test_names_of_injections_differ() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_a_whole_log_has_no_fault() -> None:
    assert found(*BEGUN, ended(), success()) == []


def test_a_trial_without_outcome_is_a_fault() -> None:
    assert found(*BEGUN, success()) == ["s: trial 0 has no outcome"]


def test_a_trial_of_a_run_that_was_broken_off_need_not_have_one() -> None:
    broken = RunClosed(at=AT, run="a", state=RunState.FAILED, cause="the session has expired")

    assert found(*BEGUN, broken) == []
    assert counted(numbered(*BEGUN, broken)) == Counted(0, 0, 0)


def test_a_run_that_was_broken_off_without_a_cause_is_a_fault() -> None:
    assert found(opened(), closed(state=RunState.FAILED)) == ["s: run a is failed without a cause"]


def test_a_run_that_is_open_still_is_a_fault() -> None:
    assert found(opened()) == ["s: run a is open"]


def test_an_observation_that_is_there_twice_is_a_fault() -> None:
    assert found(*BEGUN, ended(), ended(), success()) == ["s: trials [0] were observed twice"]


def test_a_result_of_an_attempt_that_was_fenced_off_is_late_and_no_fault() -> None:
    events = (*BEGUN, claimed(2), ended(), ended(attempt=2), success())

    assert found(*events) == []
    assert counted(numbered(*events)) == Counted(1, 1, 1)


def test_a_trial_that_an_injection_made_fail_is_a_fault() -> None:
    assert found(*BEGUN, ended(Outcome.FAILED, "OSError"), success()) == [
        "s: trial 0 failed: OSError"
    ]


def test_an_outcome_without_a_cause_is_a_fault() -> None:
    assert found(*BEGUN, ended(Outcome.LOST), success()) == ["s: trial 0 is lost without a cause"]


def test_what_an_attempt_did_again_is_its_loss() -> None:
    store = MemoryObjectStore()
    keys = StudyKeys("s").trial(0, 1)
    curve = [CurvePoint(epoch, 0.1, None, seconds=2.0 * (epoch + 1)) for epoch in range(5)]
    store.put(keys.curve, curve_to_bytes(curve))
    again = TrialClaimed(at=AT, n=0, attempt=2, run="a", worker="w", checkpoint=keys.checkpoint(3))

    assert losses("s", store, numbered(*BEGUN, again), []) == [
        Loss(Flight("s", 0, 1), AT.timestamp(), 4.0)
    ]
    (anew,) = losses("s", store, numbered(*BEGUN, claimed(2)), [])
    assert anew.seconds == 10.0


def test_what_was_not_written_down_when_it_was_hit_is_lost_too() -> None:
    flight = Flight("s", 0, 1)
    hits = [
        Strike(n, "kill", Cost(), AT.timestamp(), hit_s=AT.timestamp() + 7 * n, flights=[flight])
        for n in (1, 2)
    ]
    again = TrialClaimed(at=AT + timedelta(seconds=20), n=0, attempt=2, run="a", worker="w")

    (lost,) = losses("s", MemoryObjectStore(), numbered(*BEGUN, again), hits)
    assert lost.seconds == 7.0


def test_an_injection_that_comes_after_an_attempt_costs_it_nothing() -> None:
    flight = Flight("s", 0, 1)
    late = AT.timestamp() + 9
    hits = [Strike(1, "kill", Cost(), AT.timestamp(), hit_s=late, flights=[flight])]
    again = TrialClaimed(at=AT + timedelta(seconds=2), n=0, attempt=2, run="a", worker="w")

    (lost,) = losses("s", MemoryObjectStore(), numbered(*BEGUN, again), hits)

    assert lost.seconds == 0.0


def test_a_loss_is_put_down_to_the_injection_before_it() -> None:
    flight = Flight("s", 0, 1)
    strikes = [
        Strike(n, "kill", Cost(), (AT + timedelta(minutes=n)).timestamp(), flights=[flight])
        for n in (1, 2)
    ]
    lost = [Loss(flight, (AT + timedelta(minutes=2, seconds=5)).timestamp(), 3.0)]
    trial = Flight("s", 0, 0)

    table = rows(strikes, {trial}, {trial}, lost)

    assert [(row.expected, row.counted, row.lost_s) for row in table] == [(1, 1, 0.0), (1, 1, 3.0)]
    assert "| 1, 1 | 3.0 s |" in text(table)
