"""A run that has failed or was abandoned goes on where Airflow calls a step of it once more."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from automl.domain.events import (
    RunState,
    SearchEnd,
)
from automl.domain.facts import Origin
from automl.domain.invariants import violations
from automl.errors import AutoMLError, ConfigError, SearchError, StudyBusyError
from automl.runs import opening
from automl.runs.ownership import give
from automl.runs.run_lease import RunLease, is_run_alive, is_waiting, run_tenure
from automl.runs.trials import TrialSource
from automl.tracks.image.space import NetworkMorphismSpace
from tests.homes import use_home
from tests.opened_runs import (
    ABANDONED,
    DOCUMENT,
    FAILED,
    FORM,
    LATER_STEPS,
    OWN,
    call,
    call_again,
    closed,
    context_of,
    opened,
    reopenings,
    run_in,
    searched,
    spec_with,
)

STEPS = ("open_run", *LATER_STEPS)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = use_home(tmp_path / "home", monkeypatch)
    monkeypatch.setenv("AUTOML_SOURCES", "/absent")
    return home


# --- which steps open it again, and what it has then ---


@pytest.mark.parametrize("state", [FAILED, ABANDONED])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("origin", [OWN, FORM])
def test_a_step_of_a_run_that_was_closed_opens_it_again(
    home: Path, state: RunState, step: str, origin: str
) -> None:
    context = closed(searched(opened(home, "one", origin=origin)), state)
    assert run_in(context, "one").state is state

    call_again(step, origin)

    run = run_in(context, "one")
    assert (run.state, run.cause, run.closed_at) == (RunState.OPEN, "", None)
    (event,) = reopenings(context)
    begins = step in {"open_run", "run_worker"}
    assert (event.deadline is not None) == begins
    assert violations(context.record.log.read()) == []
    tenure = run_tenure(context.home, "digits")
    assert tenure is not None
    assert (tenure.holder, is_waiting(tenure)) == ("one", True)


@pytest.mark.parametrize("state", [FAILED, ABANDONED])
@pytest.mark.parametrize("origin", ["cli", "python", "test", ""])
def test_a_run_without_airflow_stays_closed(home: Path, state: RunState, origin: str) -> None:
    context = closed(searched(opened(home, "one", origin=origin)), state)
    before = context.record.refresh()

    with pytest.raises(SearchError, match=rf"Run one of study digits was closed as {state}"):
        call("run_worker", "one", origin=origin, spec=spec_for(origin))
    assert context.record.refresh() == before
    assert not is_run_alive(context.home, "digits")


def spec_for(origin: str) -> dict[str, Any]:
    rows = {"test_fraction": 0.0} if origin == "python" else {}
    return DOCUMENT | {"data": DOCUMENT["data"] | rows}


@pytest.mark.parametrize("state", [FAILED, ABANDONED])
@pytest.mark.parametrize(
    ("step", "result"), [("give_back", []), ("fail_run", None), ("check", None), ("prepare", None)]
)
def test_what_does_not_work_on_the_open_run_never_opens_one_again(
    home: Path, state: RunState, step: str, result: object
) -> None:
    context = closed(searched(opened(home, "one", origin=OWN)), state)
    before = context.record.refresh()

    found = call_again(step, cause="late")

    assert found == ({"state": state.value} if step == "fail_run" else result)
    assert context.record.refresh() == before
    assert not is_run_alive(context.home, "digits")


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_was_never_opened_is_not_opened_by_its_later_steps(
    home: Path, step: str
) -> None:
    call_again(step)

    assert context_of(home, "look").record.refresh().runs == ()


@pytest.mark.parametrize("step", ["open_run", "run_worker"])
def test_a_search_without_a_winner_begins_anew_with_its_whole_time(home: Path, step: str) -> None:
    context = closed(searched(opened(home, "one", origin=OWN)), FAILED)
    old = run_in(context, "one")

    call_again(step)

    run = run_in(context, "one")
    assert run.is_searching
    assert run.reopened_at is not None
    assert run.deadline - run.reopened_at == timedelta(minutes=10)
    assert run.deadline > old.deadline
    assert (run.outcomes, run.opened_at) == (1, old.opened_at)
    source = TrialSource(context, "one/0", lambda *_: NetworkMorphismSpace(8, 10))
    claim = source.take()
    assert claim is not None
    assert claim.trial.number == 1  # of three, as before


@pytest.mark.parametrize("step", STEPS)
def test_a_run_with_a_winner_goes_on_with_it(home: Path, step: str) -> None:
    context = closed(searched(opened(home, "one", origin=OWN), is_chosen=True), FAILED)
    old = run_in(context, "one")

    call_again(step)

    run = run_in(context, "one")
    assert (run.state, run.winner, run.search_end) == (RunState.OPEN, 0, SearchEnd.DEADLINE)
    assert (run.deadline, run.chosen_at) == (old.deadline, old.chosen_at)


def test_the_trials_that_a_search_began_anew_may_have_are_those_that_are_left(home: Path) -> None:
    spec = spec_with(search={"max_trials": 1})
    context = closed(searched(opened(home, "one", spec, origin=OWN)), FAILED)
    again = context_of(home, "one", spec, origin=OWN)
    call_again("open_run", spec=spec.model_dump(mode="json", by_alias=True))

    assert TrialSource(again, "one/0", lambda *_: NetworkMorphismSpace(8, 10)).take() is None
    assert run_in(context, "one").search_end is SearchEnd.MAX_TRIALS


def test_a_run_that_continues_a_version_searches_no_more_than_before(home: Path) -> None:
    spec = spec_with(final_fit={"from": 3})
    context = closed(opened(home, "one", spec, origin=OWN), FAILED)

    assert call_again("run_worker", spec=spec.model_dump(mode="json", by_alias=True)) is not None

    run = run_in(context, "one")
    assert (run.state, run.search_end) == (RunState.OPEN, SearchEnd.CONTINUED)
    (event,) = reopenings(context)
    assert event.deadline is None


def test_choosing_again_ends_what_was_left_of_the_search(home: Path) -> None:
    context = closed(searched(opened(home, "one", origin=OWN)), ABANDONED)

    assert call_again("choose") == {"trial": 0, "score": 0.9, "error": 0.1}

    assert run_in(context, "one").winner == 0


def test_two_workers_that_are_called_again_open_the_run_once(home: Path) -> None:
    context = closed(searched(opened(home, "one", origin=OWN)), FAILED)

    call_again("run_worker", worker=0)
    call_again("run_worker", worker=1)

    assert len(reopenings(context)) == 1


def test_a_run_may_fail_and_be_opened_again_as_often_as_one_likes(home: Path) -> None:
    context = closed(searched(opened(home, "one", origin=OWN)), FAILED)
    for _ in range(3):
        call_again("open_run")
        assert call("fail_run", "one", origin=OWN, cause="again") == {"state": "failed"}
        assert not is_run_alive(context.home, "digits")

    assert len(reopenings(context)) == 3
    assert violations(context.record.log.read()) == []


# --- other runs of the study ---


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_lives_is_waited_for(home: Path, step: str) -> None:
    context = closed(searched(opened(home, "one", origin=OWN)), FAILED)
    other = context_of(home, "other", origin=FORM)
    give(context.home, "digits", Origin.of(FORM), "mia")
    with RunLease(other):
        opening.open_run(other, "snapshot")
        before = other.record.refresh()

        with pytest.raises(StudyBusyError, match="Run other of study digits is open and works"):
            call(step, "one", origin=OWN, snapshot="snapshot")
        assert other.record.refresh() == before


@pytest.mark.parametrize("step", STEPS)
def test_a_run_whose_processes_died_is_closed_as_abandoned(home: Path, step: str) -> None:
    context = closed(searched(opened(home, "one", origin=OWN)), FAILED)
    opened(home, "other", origin=OWN)  # and its lease has run out

    call_again(step)

    one, other = run_in(context, "one"), run_in(context, "other")
    assert one.state is RunState.OPEN
    assert (other.state, other.cause) == (ABANDONED, "one took over")
    assert violations(context.record.log.read()) == []


def test_the_other_run_goes_on_after_this_one(home: Path) -> None:
    context = closed(searched(opened(home, "one", origin=OWN)), FAILED)
    opened(home, "other", origin=OWN)
    call_again("choose")
    opening.close_run(context_of(home, "one", origin=OWN), RunState.SUCCEEDED, "")
    RunLease(context).release()

    with suppress(AutoMLError):  # it has no snapshot
        call("run_worker", "other", origin=OWN)

    assert run_in(context, "other").state is RunState.OPEN
    assert run_in(context, "one").state is RunState.SUCCEEDED


@pytest.mark.parametrize("step", ["run_worker", "choose", "final_fit", "promote"])
def test_a_run_that_succeeded_is_never_opened_again(home: Path, step: str) -> None:
    context = searched(opened(home, "one", origin=OWN), is_chosen=True)
    opening.close_run(context, RunState.SUCCEEDED, "")
    before = context.record.refresh()

    call_again(step)

    assert context.record.refresh() == before
    assert not is_run_alive(context.home, "digits")


# --- owners ---


def test_a_run_of_a_study_that_was_given_away_stays_closed(home: Path) -> None:
    context = closed(searched(opened(home, "one", origin=OWN)), FAILED)
    give(context.home, "digits", Origin.of(FORM), "mia")
    before = context.record.refresh()

    with pytest.raises(ConfigError) as caught:
        call("choose", "one", origin=OWN)

    assert "belongs to the DAG automl_search, user ann" in caught.value.problems[0].message
    assert context.record.refresh() == before
    assert not is_run_alive(context.home, "digits")


def test_a_run_from_before_there_were_owners_makes_its_dag_the_owner(home: Path) -> None:
    context = closed(searched(opened(home, "one", origin="test")), FAILED)
    assert context.record.refresh().owner is None

    call_again("choose", FORM)

    assert context.record.refresh().owner == Origin.of(FORM)
