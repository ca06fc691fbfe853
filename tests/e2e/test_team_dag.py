"""A team's own DAG under a real Airflow, with a study in its middle that is nobody else's."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from automl.domain.events import RunState
from automl.steps.specs import PIPELINE
from tests.e2e.conftest import Scenarios
from tests.nights import FORM_DAG, Night, NightRun, happens, until

DAG, GROUP, STUDY = "greenhouse", "search", "greenhouse"


@dataclass(frozen=True)
class Greenhouse:
    """A run of the team's DAG, and somebody's attempt to continue its study from the form.

    Attributes:
        run: the team's run.
        intruder: the attempt.
    """

    run: NightRun
    intruder: NightRun


def greenhouse(night: Night) -> Greenhouse:
    """Let the team's DAG run at its hour, and the form name its study."""
    night.airflow.client.wait_for_dag(DAG, 120)
    night.airflow.client.call("PATCH", f"dags/{DAG}", {"is_paused": False})
    run, *_ = until(lambda: night.runs_of(DAG), f"a run of {DAG}")
    run.wait()
    return Greenhouse(run, night.trigger(FORM_DAG, night.quick_form(STUDY)).wait("failed"))


pytestmark = happens(greenhouse)


@pytest.fixture(scope="module")
def after(scenarios: Scenarios) -> Greenhouse:
    return scenarios.outcome(greenhouse)


def test_all_its_tasks_ran_in_one_group(after: Greenhouse) -> None:
    states = after.run.states()

    steps = {f"{GROUP}.{step.task}" for step in PIPELINE}
    assert states == dict.fromkeys({*steps, "fetch", "announce"}, "success")
    assert set(after.run.tries().values()) == {1}


def test_it_published_a_champion(after: Greenhouse, night: Night) -> None:
    run = after.run.in_log(STUDY)
    assert (run.state, run.promoted) == (RunState.SUCCEEDED, True)
    assert str(run.origin) == f"airflow:{DAG}"
    assert night.champion(STUDY).run == run.name
    assert "version 1 is in force" in after.run.log("announce")


def test_the_form_may_not_continue_its_study(after: Greenhouse, night: Night) -> None:
    states = after.intruder.states()
    assert states.pop("check") == "failed"
    assert set(states.values()) == {"upstream_failed"}
    log = after.intruder.log("check")
    assert f"study {STUDY} belongs to the DAG {DAG}" in log
    assert f"automl give {STUDY} {FORM_DAG} --user admin" in log
    assert [run.name for run in night.study(STUDY).runs] == [after.run.name]
