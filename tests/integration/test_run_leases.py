"""Leases of runs none of whose steps works: for how long, and for whom."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from automl.doctor import examine
from automl.domain.events import RunState
from automl.domain.settings import Settings
from automl.errors import StudyBusyError
from automl.machine.signals import StopSignal
from automl.runs import opening
from automl.runs.run_lease import (
    RUN_TTL_S,
    STOPPED_TTL_S,
    WAITING_TTL_S,
    RunLease,
    is_waiting,
    run_tenure,
)
from automl.steps.study_file import load_study_file
from automl.storage.home import Home
from automl.storage.open import open_home
from tests.commands import automl, document_of
from tests.homes import use_home
from tests.opened_runs import FORM, OWN, call, context_of, opened, run_in, waiting

DAY_S = 86_400.0
TEAM = "airflow:team_greens"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


def silent_for(home: Path, seconds: float) -> None:
    """Make it as if nobody had renewed the run's lease for so long."""
    past_s = time.time() - seconds
    os.utime(home / "studies" / "digits" / "leases" / "run.json", (past_s, past_s))


def state(home: Path) -> Home:
    return open_home(Settings(str(home)))


@pytest.mark.parametrize("origin", [FORM, TEAM, OWN])
def test_a_run_whose_next_step_waits_keeps_the_study_for_a_week(home: Path, origin: str) -> None:
    waiting(home, "first", origin=origin)
    silent_for(home, 6.9 * DAY_S)

    with (
        pytest.raises(
            StudyBusyError, match="Run first of study digits is open and waits"
        ) as caught,
        RunLease(context_of(home, "second", origin=FORM)),
    ):
        pass
    assert "its search ends at" in caught.value.message
    assert "`automl abandon digits` frees the study" in caught.value.hint
    silent_for(home, WAITING_TTL_S + 1)
    with RunLease(context_of(home, "second", origin=FORM)):
        pass


def test_the_next_run_of_the_studys_own_dag_does_not_wait_for_one_that_waits(home: Path) -> None:
    first = waiting(home, "first", origin=OWN)
    silent_for(home, RUN_TTL_S + 1)
    second = context_of(home, "second", origin=OWN)

    with RunLease(second):
        opening.open_run(second, "snapshot")

    assert run_in(first, "first").state is RunState.ABANDONED
    assert run_in(first, "first").cause == "second took over"


def test_an_earlier_run_of_that_dag_waits_for_a_later_one(home: Path) -> None:
    opened(home, "first", origin=OWN)
    waiting(home, "second", origin=OWN)
    silent_for(home, DAY_S)

    with (
        pytest.raises(StudyBusyError, match="Run second of study digits is open and waits"),
        RunLease(context_of(home, "first", origin=OWN)),
    ):
        pass


def test_a_step_that_was_asked_to_stop_keeps_the_study_for_an_hour(home: Path) -> None:
    stop = StopSignal()
    context = context_of(home, "first", origin=FORM)
    with RunLease(context, stop):
        opening.open_run(context, "snapshot")
        stop.set()

    silent_for(home, STOPPED_TTL_S - 5)
    with pytest.raises(StudyBusyError), RunLease(context_of(home, "second", origin=FORM)):
        pass
    silent_for(home, STOPPED_TTL_S + 5)
    with RunLease(context_of(home, "second", origin=FORM)):
        pass


def test_a_process_that_was_overtaken_does_not_keep_the_study_when_it_ends(home: Path) -> None:
    overtaken = context_of(home, "first", origin=FORM)
    with RunLease(overtaken):
        opening.open_run(overtaken, "snapshot")
        silent_for(home, RUN_TTL_S + 1)  # it was frozen
        opened(home, "second", origin=FORM)
        opening.close_run(context_of(home, "second"), RunState.SUCCEEDED, "")

    assert run_tenure(state(home), "digits") is None


def test_a_step_that_gave_a_sign_of_life_is_not_pushed_aside_by_its_own_dag(home: Path) -> None:
    waiting(home, "first", origin=OWN)  # another process of the run may renew within 20 s
    silent_for(home, RUN_TTL_S - 5)

    with pytest.raises(StudyBusyError), RunLease(context_of(home, "second", origin=OWN)):
        pass


def test_a_run_that_renews_is_not_pushed_aside_by_its_own_dag(home: Path) -> None:
    with (
        RunLease(context_of(home, "first", origin=OWN)) as _,
        pytest.raises(StudyBusyError, match="Run first of study digits is open and works"),
        RunLease(context_of(home, "second", origin=OWN)),
    ):
        pass


@pytest.mark.parametrize(("first", "second"), [(FORM, OWN), (TEAM, TEAM), (FORM, FORM)])
def test_a_run_of_another_dag_or_of_one_that_runs_twice_at_once_is_waited_for(
    home: Path, first: str, second: str
) -> None:
    waiting(home, "first", origin=first)
    silent_for(home, DAY_S)

    with pytest.raises(StudyBusyError), RunLease(context_of(home, "second", origin=second)):
        pass


@pytest.mark.parametrize("origin", ["cli", "python"])
def test_a_run_of_this_machine_does_not_wait_between_steps(home: Path, origin: str) -> None:
    waiting(home, "first", origin=origin)

    tenure = run_tenure(state(home), "digits")

    assert tenure is not None
    assert not is_waiting(tenure)
    assert tenure.ends_at - tenure.renewed_at == timedelta(seconds=RUN_TTL_S)


# --- freeing a study by hand ---


def test_a_run_whose_next_step_will_never_come_is_abandoned_by_hand(home: Path) -> None:
    context = waiting(home, "first", origin=FORM)
    silent_for(home, RUN_TTL_S + 1)

    done = document_of(automl("abandon", "digits", "--json", settings=os.environ))

    assert done == {"schema": 1, "study": "digits", "run": "first"}
    run = run_in(context, "first")
    assert run.state is RunState.ABANDONED
    assert run.cause.endswith("abandoned it")
    with RunLease(context_of(home, "second", origin="cli")):
        pass
    again = automl("abandon", "digits", settings=os.environ)
    assert (again.returncode, again.stdout) == (0, "no run of digits is open\n")


def test_a_run_that_works_is_not_abandoned(home: Path) -> None:
    context = waiting(home, "first", origin=FORM)

    done = automl("abandon", "digits", "--json", settings=os.environ)

    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"]) == (4, "StudyBusyError")
    assert "marking its DAG run as failed" in error["hint"]
    assert run_in(context, "first").state is RunState.OPEN


def test_a_study_that_does_not_exist_has_no_run_to_abandon(home: Path) -> None:
    done = automl("abandon", "digits", "--json", settings=os.environ)

    assert done.returncode == 2
    assert "There is no study 'digits'" in json.loads(done.stdout)["error"]["message"]
    assert not (home / "studies").exists()


# --- what the doctor tells ---


def found(home: Path) -> str:
    rows = {row["check"]: row for row in examine(str(home), load_study_file).to_json()["checks"]}
    return str(rows["study digits"]["found"])


def test_the_doctor_tells_whether_an_open_run_works_or_waits(home: Path) -> None:
    with RunLease(context := context_of(home, "first", origin=FORM)):
        opening.open_run(context, "snapshot")
        assert "run first is open and works; its log is whole" in found(home)

    assert "run first is open and waits for its next step since 20" in found(home)
    call("fail_run", "first", cause="x", origin=FORM)
    assert "no run is open" in found(home)
