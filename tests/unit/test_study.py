from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from automl.domain.candidate import Candidate
from automl.domain.data_change import ChangeKind, DataChange
from automl.domain.events import (
    DataAccepted,
    DataChanged,
    Event,
    FinalFitFinished,
    FitSource,
    FittedMember,
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
    VersionReserved,
    WinnerChosen,
    event_from_json,
    event_to_json,
)
from automl.domain.facts import Origin, OriginKind
from automl.domain.study import lineage, replay
from automl.domain.trial import Measurement, Outcome, RungResult, TrialState
from automl.errors import DamagedDataError, NewerSchemaError

AT = datetime(2026, 1, 1, tzinfo=UTC)


def opened(run: str = "a", key: str = "k") -> RunOpened:
    return RunOpened(
        at=AT, run=run, deadline=AT + timedelta(hours=1), snapshot="s", spec_hash="h",
        generation_key=key, spec={}, origin="test",
    )  # fmt: skip


def ticket(n: int = 0) -> TrialOpened:
    return TrialOpened(at=AT, n=n, run="a", worker="w")


def claimed(attempt: int, n: int = 0) -> TrialClaimed:
    return TrialClaimed(at=AT, n=n, attempt=attempt, run="a", worker=f"w{attempt}")


def finished(attempt: int, score: float, n: int = 0) -> TrialFinished:
    return TrialFinished(
        at=AT, n=n, attempt=attempt, run="a", outcome=Outcome.COMPLETED,
        measurement=Measurement(score=score, loss=-score, weights="k"),
    )  # fmt: skip


def reached(attempt: int, rung: int = 1, score: float = 0.5) -> RungReached:
    return RungReached(
        at=AT, n=0, attempt=attempt, run="a", rung=rung, epochs=3**rung, planned=27, loss=-score,
        score=score, error=0.01, log_loss=1.0,
    )  # fmt: skip


def proposed(n: int = 0) -> TrialProposed:
    candidate = Candidate(genotype="{}", hyperparameters={"learning_rate": 0.1})
    return TrialProposed(at=AT, n=n, candidate=candidate, based_on=1, strategy="random")


def ended() -> SearchEnded:
    return SearchEnded(at=AT, run="a", reason=SearchEnd.DEADLINE)


def failed(run: str = "a") -> RunClosed:
    return RunClosed(at=AT, run=run, state=RunState.FAILED, cause="the parity check said no")


def reopened(run: str = "a", deadline: datetime | None = None) -> RunReopened:
    return RunReopened(at=AT + timedelta(hours=4), run=run, deadline=deadline)


def given(owner: str) -> StudyGiven:
    return StudyGiven(at=AT, owner=owner, by="mia")


def changed(run: str = "b", snapshot: str = "s") -> DataChanged:
    found = DataChange(kind=ChangeKind.ROWS, message="half are gone", is_suspicious=True)
    return DataChanged(
        at=AT, run=run, snapshot=snapshot, before="r", changes=(found,), stopped=True
    )


def accepted() -> DataAccepted:
    return DataAccepted(at=AT, snapshot="s", by="mia", why="they were copies")


def log(*events: Event) -> list[tuple[int, Event]]:
    return list(enumerate(events))


def test_a_trial_goes_from_ticket_to_outcome() -> None:
    events = log(opened(), ticket(), proposed(), claimed(1), finished(1, 0.9))

    states = [replay(events[:length]).trials for length in (2, 3, 4, 5)]

    assert [trials[0].state for trials in states] == [
        TrialState.OPENED, TrialState.PROPOSED, TrialState.CLAIMED, TrialState.FINISHED,
    ]  # fmt: skip
    assert states[-1][0].can_win


def test_the_result_of_a_stale_attempt_changes_nothing() -> None:
    events = log(opened(), ticket(), proposed(), claimed(1), claimed(2))

    study = replay([*events, (5, finished(1, 0.9))])

    assert study.trials == replay(events).trials


def test_the_first_outcome_stands() -> None:
    events = log(opened(), ticket(), proposed(), claimed(1), finished(1, 0.9), finished(1, 0.1))

    assert replay(events).trials[0].measurement.score == 0.9


def test_rungs_are_kept_in_their_order_with_the_versions_that_hold_them() -> None:
    given_back = TrialReleased(at=AT, n=0, attempt=1, reason="slice")
    events = log(
        opened(), ticket(), proposed(), claimed(1), reached(1), given_back, claimed(2),
        reached(2, 2, 0.7), finished(2, 0.9),
    )  # fmt: skip

    (trial,) = replay(events).trials

    assert trial.rungs == (
        RungResult(1, 3, 27, -0.5, 0.5, 0.01, 1.0, recorded_in=4),
        RungResult(2, 9, 27, -0.7, 0.7, 0.01, 1.0, recorded_in=7),
    )


def test_a_rung_says_what_share_of_the_training_was_done() -> None:
    told = reached(1).model_copy(update={"share": 0.4, "log_loss": None})
    events = log(opened(), ticket(), proposed(), claimed(1), told, reached(1, 2))

    first, second = replay(events).trials[0].rungs

    assert (first.share, first.done, first.log_loss) == (0.4, 0.4, None)
    assert (second.share, second.done) == (None, 9 / 27)  # an earlier release wrote it
    assert event_from_json(event_to_json(told), "here") == told


def test_the_first_result_of_a_rung_stands() -> None:
    events = log(opened(), ticket(), proposed(), claimed(1), reached(1), claimed(2))

    study = replay([*events, (6, reached(2, score=0.9))])

    assert study.trials == replay(events).trials


def test_a_rung_of_a_stale_attempt_or_after_the_outcome_changes_nothing() -> None:
    stale = log(opened(), ticket(), proposed(), claimed(1), claimed(2))
    over = log(opened(), ticket(), proposed(), claimed(1), finished(1, 0.9))

    assert replay([*stale, (5, reached(1))]).trials == replay(stale).trials
    assert replay([*over, (5, reached(1))]).trials == replay(over).trials


def test_attempts_given_back_are_not_deaths() -> None:
    given_back = TrialReleased(at=AT, n=0, attempt=1, reason="slice")
    events = log(opened(), ticket(), proposed(), claimed(1), given_back, claimed(2), claimed(3))

    assert replay(events).trials[0].deaths == 1


def test_replay_continues_from_any_prefix() -> None:
    events = log(
        opened(), ticket(), proposed(), claimed(1), reached(1), finished(1, 0.9),
        ended(), failed(), opened("b", "k2"), given("airflow:automl_digits"), failed("b"),
        reopened(), given("cli"), failed(), reopened(deadline=AT + timedelta(hours=5)),
    )  # fmt: skip

    for length in range(len(events) + 1):
        assert replay(events[length:], replay(events[:length])) == replay(events)


def test_a_new_key_starts_a_generation() -> None:
    study = replay(log(opened(), opened("b", "k2")))

    assert [run.generation for run in study.runs] == [0, 1]


def test_a_gap_in_the_trial_numbers_is_damage() -> None:
    with pytest.raises(DamagedDataError, match="Version 1 of the study log opens trial 3"):
        replay(log(opened(), ticket(3)))


def test_events_survive_their_stored_form() -> None:
    known = (opened(), ticket(), proposed(), claimed(1), reached(1), finished(1, 0.9))
    for event in (*known, reopened(), reopened(deadline=AT), given("cli")):
        assert event_from_json(event_to_json(event), "here") == event


def test_an_unknown_event_was_written_by_a_newer_version() -> None:
    with pytest.raises(NewerSchemaError, match="upgrade this worker"):
        event_from_json({"type": "trial_teleported", "at": AT}, "Version 3")


def fit(**fields: object) -> Event:
    document = {"type": "final_fit_finished", "at": AT, "run": "a", "epochs": 9, **fields}
    return event_from_json({**document, "source": "retrained"}, "Version 4")


def test_an_older_fit_has_one_member_with_its_normalisation() -> None:
    event = fit(trial=3, weights="w", note="n", mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])

    assert event == FinalFitFinished(
        at=AT,
        run="a",
        members=(
            FittedMember(
                trial=3, model="w", details={"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
            ),
        ),
        source=FitSource.RETRAINED,
        epochs=9,
        note="n",
    )


@pytest.mark.parametrize("fields", [{}, {"mean": None, "std": None}])
def test_an_older_fit_that_names_no_normalisation_has_a_member_without(
    fields: dict[str, None],
) -> None:
    event = fit(trial=3, weights="w", **fields)

    assert isinstance(event, FinalFitFinished)
    assert event.members == (FittedMember(trial=3, model="w"),)


def test_a_fit_of_several_members_is_read_as_it_is_written() -> None:
    members = (
        FittedMember(trial=3, model="w", weight=0.75, details={"mean": [0.5]}),
        FittedMember(trial=1, model="v", weight=0.25),
    )
    event = FinalFitFinished(
        at=AT, run="a", members=members, source=FitSource.RETRAINED, epochs=9, note=""
    )

    assert event_from_json(event_to_json(event), "here") == event


@pytest.mark.parametrize(
    "fields",
    [{}, {"trial": 3}, {"members": []}, {"members": [{"trial": 3, "model": "w"}], "weights": "w"}],
)
def test_a_fit_of_neither_form_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(NewerSchemaError):
        fit(**fields)


def test_a_choice_names_the_trials_that_are_blended_with_the_winner() -> None:
    choice = WinnerChosen(at=AT, run="a", trial=0, loss=-0.9, blended=(2, 1))
    older = {"type": "winner_chosen", "at": AT, "run": "a", "trial": 0, "loss": -0.9}

    assert event_from_json(event_to_json(choice), "here") == choice
    assert replay(log(opened(), choice)).runs[0].blended == (2, 1)
    assert replay(log(opened(), event_from_json(older, "here"))).runs[0].blended == ()


def test_a_lineage_goes_from_a_trial_to_its_seed() -> None:
    child = proposed(1).model_copy(
        update={"candidate": Candidate(genotype="{}", hyperparameters={}, parent=0)}
    )
    study = replay(log(opened(), ticket(), proposed(), ticket(1), child, ticket(2)))

    assert [trial.number for trial in lineage(study, study.trials[1])] == [1, 0]
    assert [trial.number for trial in lineage(study, study.trials[0])] == [0]
    assert [trial.number for trial in lineage(study, study.trials[2])] == [2]


def test_a_reopened_run_has_all_that_it_had_come_to() -> None:
    choice = WinnerChosen(at=AT, run="a", trial=0, loss=-0.9, runner_up=None)
    reserved = VersionReserved(at=AT, run="a", version=4)
    before = log(
        opened(), ticket(), proposed(), claimed(1), finished(1, 0.9), ended(), choice, reserved
    )
    open_run = replay(before).runs[0]

    closed = replay([*before, (8, failed())])
    (run,) = replay([(9, reopened())], closed).runs

    assert closed.open_run is None
    assert (run.state, run.cause, run.closed_at) == (RunState.OPEN, "", None)
    assert run.reopened_at == AT + timedelta(hours=4)
    assert dataclasses.replace(run, reopened_at=None) == open_run


def test_a_new_deadline_lets_the_search_of_a_reopened_run_begin_anew() -> None:
    before = log(opened(), ticket(), proposed(), claimed(1), finished(1, 0.9), ended(), failed())
    deadline = AT + timedelta(hours=6)

    (run,) = replay([*before, (7, reopened(deadline=deadline))]).runs
    (other,) = replay([*before, (7, reopened())]).runs

    assert run.is_searching
    assert (run.deadline, run.search_end, run.search_ended_at) == (deadline, None, None)
    assert (run.outcomes, run.opened_at) == (1, AT)
    assert not other.is_searching
    assert other.deadline == AT + timedelta(hours=1)


def test_reopening_a_run_that_was_never_opened_is_damage() -> None:
    with pytest.raises(DamagedDataError, match="speaks of run 'a', which was never opened"):
        replay(log(reopened()))


def test_a_study_belongs_to_whom_it_was_given_last() -> None:
    assert replay(log(opened())).owner is None
    events = log(opened(), given("airflow:automl_search:ann"), given("cli"))

    assert replay(events[:2]).owner == Origin(OriginKind.AIRFLOW, "automl_search", "ann")
    assert replay(events).owner == Origin(OriginKind.CLI)


def test_runs_are_ordered_by_their_opening_alone() -> None:
    study = replay(log(opened(), failed(), opened("b"), failed("b"), reopened()))
    first, second = study.runs

    assert study.is_later("b", first)
    assert not study.is_later("a", second)
    assert not study.is_later("a", first)
    assert not study.is_later("unheard of", first)


def test_a_run_knows_what_changed_in_the_data_that_were_prepared_for_it() -> None:
    study = replay(log(opened(), failed(), changed("b"), opened("b")))

    assert [run.changes for run in study.runs] == [(), changed().changes]


@pytest.mark.parametrize("event", [changed("c"), changed("b", "other")])
def test_what_was_found_for_another_run_or_snapshot_is_no_change_of_this_one(
    event: DataChanged,
) -> None:
    assert replay(log(opened(), failed(), event, opened("b"))).runs[-1].changes == ()


def test_a_verdict_on_data_and_its_acceptance_hold_until_the_next_run_is_opened() -> None:
    events = log(opened(), failed(), changed(), accepted(), opened("b"))

    before, after = replay(events[:4]), replay(events)

    assert (before.judged, before.accepted) == (changed(), accepted())
    assert (after.judged, after.accepted) == (None, None)
    assert after == replay(events[4:], before)
