from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.events import (
    Event,
    RunOpened,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
    TrialReleased,
)
from automl.domain.study import Study, replay
from automl.domain.trial import Measurement, Outcome, TrialState
from automl.search.history import History, HistoryReader, changed_trials
from tests.spaces import candidate

AT = datetime(2026, 1, 1, tzinfo=UTC)
RUNS = {"a": ("digits-1", "key-1"), "b": ("digits-2", "key-1"), "c": ("digits-2", "key-2")}
KEYS = [(0, "digits-1"), (0, "digits-2"), (1, "digits-2")]


def run_opened(run: str) -> RunOpened:
    snapshot, key = RUNS[run]
    return RunOpened(
        at=AT, run=run, deadline=AT + timedelta(hours=1), snapshot=snapshot, spec_hash="h",
        generation_key=key, spec={}, origin="test",
    )  # fmt: skip


def opened(n: int, run: str = "a") -> TrialOpened:
    return TrialOpened(at=AT, n=n, run=run, worker="w")


def proposed(n: int, word: str = "a") -> TrialProposed:
    return TrialProposed(at=AT, n=n, candidate=candidate(word), based_on=0, strategy="random")


def claimed(n: int, attempt: int = 1) -> TrialClaimed:
    return TrialClaimed(at=AT, n=n, attempt=attempt, run="a", worker="w")


def finished(
    n: int,
    outcome: Outcome = Outcome.COMPLETED,
    attempt: int = 1,
    weights: str | None = "weights",
) -> TrialFinished:
    loss = None if outcome is Outcome.FAILED else float(n)
    return TrialFinished(
        at=AT, n=n, attempt=attempt, run="a", outcome=outcome,
        measurement=Measurement(loss=loss, weights=weights),
    )  # fmt: skip


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """Logs of three runs: trials open, get candidates, start, stop and end in any order."""
    events: list[Event] = [run_opened("a")]
    waiting = ["c", "b"]
    runs, attempts, ended = ["a"], list[int](), set[int]()
    for _ in range(draw(st.integers(0, 60))):
        live = [n for n in range(len(attempts)) if n not in ended]
        step = draw(st.integers(0, 9))
        if step == 0 and waiting:
            runs.append(waiting.pop())
            events.append(run_opened(runs[-1]))
        elif step <= 3 or not live:
            events.append(opened(len(attempts), draw(st.sampled_from(runs))))
            attempts.append(0)
        else:
            n = draw(st.sampled_from(live))
            if step <= 5:
                events.append(proposed(n, draw(st.sampled_from(["a", "b", "ab", "ba"]))))
            elif step <= 7:
                attempts[n] += 1
                events.append(claimed(n, attempts[n]))
            elif step == 8:
                events.append(
                    TrialReleased(at=AT, n=n, attempt=attempts[n], reason="slice is over")
                )
            else:
                ended.add(n)
                outcome = draw(st.sampled_from(list(Outcome)))
                weights = draw(st.sampled_from(["weights", None]))
                events.append(finished(n, outcome, attempts[n], weights))
    return events


def expected(study: Study, generation: int, snapshot: str) -> History:
    """What the history should be, from the whole study."""
    trials = [t for t in study.trials if t.generation == generation and t.candidate is not None]
    here = [t for t in trials if t.snapshot == snapshot]
    ended = sorted(
        (t for t in trials if t.state is TrialState.FINISHED), key=lambda t: t.finished_in
    )
    return History(
        snapshot=snapshot,
        identities={t.candidate.identity for t in here if t.candidate is not None},
        finished=[t for t in ended if t.snapshot == snapshot],
        pending={t.number: t for t in here if t.state is not TrialState.FINISHED},
        parents=[
            t
            for t in here
            if (t.can_win or t.outcome is Outcome.COMPLETED) and t.outcome is not Outcome.DIVERGED
        ],
        elsewhere=[t for t in ended if t.snapshot != snapshot],
    )


def study_after(events: Sequence[Event], length: int) -> Study:
    return replay(list(enumerate(events))[:length])


def same(found: History, wanted: History) -> bool:
    """Whether two histories are equal, down to the order in which they are iterated."""
    return found == wanted and list(found.pending) == list(wanted.pending)


@given(events=logs(), data=st.data())
def test_a_reader_that_follows_a_study_knows_what_a_new_one_reads(
    events: list[Event], data: st.DataObject
) -> None:
    warm = HistoryReader()
    steps = range(0, len(events) + 1, data.draw(st.integers(1, 5)))
    jumps = data.draw(st.lists(st.integers(0, len(events)), max_size=5))
    for length in (*steps, *jumps):  # forwards, then anywhere
        study = study_after(events, length)
        generation, snapshot = data.draw(st.sampled_from(KEYS))

        followed = warm.read(study, generation, snapshot)

        assert same(followed, expected(study, generation, snapshot))
        assert same(HistoryReader().read(study, generation, snapshot), followed)


def test_trials_are_in_the_order_in_which_they_ended() -> None:
    events: list[Event] = [
        run_opened("a"), *(opened(n) for n in range(3)), *(proposed(n) for n in range(3)),
        *(claimed(n) for n in range(3)), finished(2), finished(0, Outcome.FAILED), finished(1),
    ]  # fmt: skip

    history = HistoryReader().read(replay(enumerate(events)), 0, "digits-1")

    assert [trial.number for trial in history.finished] == [2, 0, 1]
    assert [trial.number for trial in history.parents] == [1, 2]


def test_unfinished_trials_are_in_the_order_of_their_numbers_whoever_was_quicker() -> None:
    events: list[Event] = [run_opened("a"), opened(0), opened(1), proposed(1), proposed(0)]
    warm = HistoryReader()
    for length in range(len(events) + 1):
        history = warm.read(study_after(events, length), 0, "digits-1")

    assert list(history.pending) == [0, 1]


def test_a_trial_that_ends_without_a_candidate_is_left_out() -> None:
    events: list[Event] = [run_opened("a"), opened(0), claimed(0), finished(0, Outcome.FAILED)]

    history = HistoryReader().read(replay(enumerate(events)), 0, "digits-1")

    assert history == History("digits-1")


def test_a_trial_of_another_snapshot_counts_once_it_has_ended() -> None:
    events: list[Event] = [
        run_opened("a"), opened(0), proposed(0), run_opened("b"), claimed(0), finished(0),
    ]  # fmt: skip
    reader = HistoryReader()
    before = list(reader.read(study_after(events, 5), 0, "digits-2").elsewhere)
    after = reader.read(study_after(events, 6), 0, "digits-2")

    assert before == []
    assert [trial.number for trial in after.elsewhere] == [0]
    assert after.identities == set()


@pytest.mark.parametrize(
    ("outcome", "is_parent"),
    [(Outcome.COMPLETED, True), (Outcome.TIMED_OUT, True), (Outcome.PRUNED, False),
     (Outcome.FAILED, False), (Outcome.DIVERGED, False), (Outcome.OUT_OF_MEMORY, False)],
)  # fmt: skip
def test_only_what_completed_or_can_win_lends_weights(outcome: Outcome, is_parent: bool) -> None:  # noqa: FBT001 - a parameter of the test
    events: list[Event] = [
        run_opened("a"),
        opened(0),
        proposed(0),
        claimed(0),
        finished(0, outcome),
    ]

    history = HistoryReader().read(replay(enumerate(events)), 0, "digits-1")

    assert len(history.finished) == 1
    assert len(history.parents) == is_parent


@pytest.mark.parametrize(("outcome", "parents"), [(Outcome.COMPLETED, 1), (Outcome.TIMED_OUT, 0)])
def test_a_completed_trial_without_weights_may_have_children(
    outcome: Outcome, parents: int
) -> None:
    end = finished(0, outcome, weights=None)
    events: list[Event] = [run_opened("a"), opened(0), proposed(0), claimed(0), end]

    assert len(HistoryReader().read(replay(enumerate(events)), 0, "digits-1").parents) == parents


def test_what_changed_between_two_states_is_read_off_the_unfinished_trials() -> None:
    events: list[Event] = [
        run_opened("a"), opened(0), proposed(0), opened(1), proposed(1), claimed(0), claimed(1),
        finished(1), opened(2), finished(0),
    ]  # fmt: skip
    before, after = study_after(events, 7), study_after(events, 10)

    assert [trial.number for trial in changed_trials(before, after)] == [2, 1, 0]
    assert changed_trials(after, after) == [after.trials[2]]
