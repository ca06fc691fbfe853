"""Study files are changed, broken, renamed and deleted under a real Airflow, during runs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from automl.domain.events import RunState
from tests.e2e.conftest import Scenarios
from tests.nights import Night, NightRun, happens, held, until

CHANGED, RENAMED, HOURLY = "changed", "renamed", "every-minute"
BROKEN = "name: {name}\ntask: nonsense\nserch: {{}}\nschedule: {schedule}\n"
PROBLEMS = ("nonsense", "serch")


@dataclass(frozen=True)
class Edited:
    """A run whose study file was edited while it went on.

    Attributes:
        run: the run.
        waited: the state of `open_run` while another run held the study.
        later: the next run.
    """

    run: NightRun
    waited: str
    later: NightRun | None = None


def changed_then_broken(night: Night) -> Edited:
    """Change a file while its run waits for the study, and break it during the search."""
    dag_id = f"automl_{CHANGED}"
    night.write_study(CHANGED)
    night.airflow.client.wait_for_dag(dag_id, 120)
    with held(night, CHANGED):
        run = night.trigger(dag_id)
        run.wait_for_task("check", "success")
        night.write_study(CHANGED, search={"max_trials": 2, "workers": 3, "strategy": "random"})
        waited = run.wait_for_task("open_run", "up_for_reschedule")
        night.wait_for_parse(dag_id)
    run.wait_for_task("search", "running")
    night.write(f"{CHANGED}.yaml", BROKEN.format(name=CHANGED, schedule="null"))
    run.wait()
    night.wait_for_parse(dag_id)
    return Edited(run, waited, night.trigger(dag_id).wait("failed"))


def renamed_then_deleted(night: Night) -> Edited:
    """Rename a file while its run waits for the study, and delete it during the search."""
    dag_id = f"automl_{RENAMED}"
    path = night.write_study(RENAMED)
    night.airflow.client.wait_for_dag(dag_id, 120)
    with held(night, RENAMED):
        run = night.trigger(dag_id)
        run.wait_for_task("check", "success")
        path = path.rename(path.with_stem("another-name"))
        waited = run.wait_for_task("open_run", "up_for_reschedule")
        night.wait_for_parse(dag_id)
    run.wait_for_task("search", "running")
    path.unlink()
    return Edited(run.wait(), waited)


def broken_at_its_hour(night: Night) -> NightRun:
    """Return the first run of a broken file that asks for one every minute."""
    dag_id = f"automl_{HOURLY}"
    path = night.write(f"{HOURLY}.yaml", BROKEN.format(name=HOURLY, schedule='"* * * * *"'))
    run, *_ = until(lambda: night.runs_of(dag_id), f"a run of {dag_id}", within_s=300)
    run.wait("failed")
    path.unlink()
    return run


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(changed_then_broken, marks=happens(changed_then_broken)),
        pytest.param(renamed_then_deleted, marks=happens(renamed_then_deleted)),
    ],
    ids=[CHANGED, RENAMED],
)
def edited(scenarios: Scenarios, request: pytest.FixtureRequest) -> Edited:
    found: Edited = scenarios.outcome(request.param)
    return found


def test_the_run_goes_on_with_what_was_checked(edited: Edited, night: Night) -> None:
    study = edited.run.dag_id.removeprefix("automl_")
    run = edited.run.in_log(study)

    assert (run.state, run.promoted, run.outcomes) == (RunState.SUCCEEDED, True, 1)
    assert run.spec["search"]["strategy"] == "bayesian"
    assert len([t for t in edited.run.tasks() if t["task_id"] == "search"]) == 1
    assert night.champion(study).run == run.name


def test_it_says_that_the_file_counts_from_the_next_run(edited: Edited) -> None:
    assert "next run" in edited.run.log("choose")


def test_a_busy_study_is_waited_for_without_a_retry(edited: Edited) -> None:
    assert edited.waited == "up_for_reschedule"
    assert set(edited.run.tries().values()) == {1}


@happens(changed_then_broken)
def test_the_next_run_of_a_broken_file_fails_in_check(scenarios: Scenarios) -> None:
    later = scenarios.outcome(changed_then_broken).later

    assert later is not None
    assert_refused(later)


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
