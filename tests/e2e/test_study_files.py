"""A study file is broken, renamed, deleted and changed under a real Airflow, during a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from automl.domain.events import RunState
from tests.e2e.conftest import Scenarios
from tests.nights import Night, NightRun, happens, held, until

STUDY, AT_ITS_HOUR = "edited", "every-minute"
BROKEN = "name: {name}\ntask: nonsense\nserch: {{}}\nschedule: {schedule}\n"
PROBLEMS = ("nonsense", "serch")


@dataclass(frozen=True)
class Edited:
    """A run whose study file was edited while it waited for the study.

    Attributes:
        run: the run.
        waiting: the state of `open_run` after each edit.
        later: the next run, which began when the file was broken.
    """

    run: NightRun
    waiting: dict[str, str]
    later: NightRun


def edited(night: Night) -> Edited:
    """Edit a file in four ways while its run waits, and break it once more after the run.

    The schedule tells when the DAG processor has read an edit.
    """
    dag_id, waiting = f"automl_{STUDY}", {}
    path = night.write_study(STUDY)
    night.wait_for_dag(dag_id, timetable_summary=None)
    with held(night, STUDY):
        run = night.trigger(dag_id)
        run.wait_for_task("check", "success")

        _break(path, "5 0 29 2 *")
        night.wait_for_dag(dag_id, timetable_summary="5 0 29 2 *")
        waiting["broken"] = _another_attempt(run)

        path.unlink()
        path = night.write_study(STUDY, file="renamed", schedule="6 0 29 2 *")
        night.wait_for_dag(dag_id, timetable_summary="6 0 29 2 *")
        waiting["renamed"] = run.states()["open_run"]

        path.unlink()
        night.wait_for_dag(dag_id, timetable_summary=None)
        waiting["deleted"] = _another_attempt(run)

        search = {"max_trials": 2, "workers": 3, "strategy": "random"}
        path = night.write_study(STUDY, schedule="7 0 29 2 *", search=search)
        night.wait_for_dag(dag_id, timetable_summary="7 0 29 2 *")
        waiting["changed"] = run.states()["open_run"]
    run.wait()
    _break(path, "8 0 29 2 *")
    night.wait_for_dag(dag_id, timetable_summary="8 0 29 2 *")
    return Edited(run, waiting, night.trigger(dag_id).wait("failed"))


def _break(path: Path, schedule: str) -> None:
    path.write_text(BROKEN.format(name=path.stem, schedule=f'"{schedule}"'))


def _another_attempt(run: NightRun) -> str:
    """Return the state of `open_run` after it has tried once more to get the study."""
    before = run.attempts("open_run")
    until(lambda: run.attempts("open_run") > before, "open_run tries again")
    return run.wait_for_task("open_run", "up_for_reschedule")


def broken_at_its_hour(night: Night) -> NightRun:
    """Return the first run of a broken file that asks for one every minute."""
    path = night.studies / f"{AT_ITS_HOUR}.yaml"
    _break(path, "* * * * *")
    dag_id = f"automl_{AT_ITS_HOUR}"
    night.wait_for_dag(dag_id)
    run, *_ = until(lambda: night.runs_of(dag_id), f"a run of {dag_id}", within_s=300)
    run.wait("failed")
    path.unlink()
    return run


@pytest.fixture(scope="module")
def after(scenarios: Scenarios) -> Edited:
    return scenarios.outcome(edited)


@happens(edited)
@pytest.mark.parametrize("edit", ["broken", "renamed", "deleted", "changed"])
def test_the_run_goes_on_after_its_file_was(edit: str, after: Edited) -> None:
    alive = {"up_for_reschedule", "scheduled", "queued", "running"}

    assert after.waiting[edit] in alive
    assert set(after.run.states().values()) == {"success"}


@happens(edited)
def test_it_publishes_what_was_checked(after: Edited, night: Night) -> None:
    run = after.run.in_log(STUDY)

    assert (run.state, run.promoted, run.outcomes) == (RunState.SUCCEEDED, True, 1)
    assert run.spec["search"]["strategy"] == "bayesian"
    assert len([t for t in after.run.tasks() if t["task_id"] == "search"]) == 1
    assert night.champion(STUDY).run == run.name


@happens(edited)
def test_it_says_that_the_file_counts_from_the_next_run(after: Edited) -> None:
    for task_id, change in (("open_run", "cannot be used any more"), ("choose", "has changed")):
        log = after.run.log(task_id)
        assert change in log
        assert "the file counts from the next run" in log


@happens(edited)
def test_a_busy_study_is_waited_for_without_a_retry(after: Edited) -> None:
    assert after.waiting["broken"] == after.waiting["deleted"] == "up_for_reschedule"
    assert "Run by-hand of study" in after.run.log("open_run")
    assert set(after.run.tries().values()) == {1}


@happens(edited)
def test_the_next_run_of_a_broken_file_fails_in_check(after: Edited) -> None:
    assert_refused(after.later)


@happens(broken_at_its_hour)
def test_a_broken_file_fails_at_its_hour(scenarios: Scenarios) -> None:
    run = scenarios.outcome(broken_at_its_hour)

    assert run.run_id.startswith("scheduled__")
    assert_refused(run)


def assert_refused(run: NightRun) -> None:
    """Assert that `check` failed with all problems and nothing else ran."""
    states = run.states()
    assert states.pop("check") == "failed"
    assert set(states.values()) == {"upstream_failed"}
    log = run.log("check")
    for problem in PROBLEMS:
        assert problem in log
