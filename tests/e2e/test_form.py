"""The trigger form under a real Airflow: what is refused, where, and with which words."""

from __future__ import annotations

import pytest
from automl_airflow.rest import AirflowApiError

from tests.e2e.conftest import Scenarios
from tests.e2e.test_outages import PRIORITY, SHORT
from tests.nights import FORM_DAG, Night, NightRun, happens


def unknown_key(night: Night) -> NightRun:
    """Return a run whose form had a key that is none."""
    return night.trigger(FORM_DAG, night.quick_form("refused", wokers=3)).wait("failed")


@happens(SHORT)
def test_a_run_from_the_form_can_take_the_cpus_pool_and_weigh_more(scenarios: Scenarios) -> None:
    tasks = {task["task_id"]: task for task in scenarios.outcome(SHORT).run.tasks()}

    for task_id in ("search", "final_fit"):
        assert (tasks[task_id]["pool"], tasks[task_id]["queue"]) == ("automl_cpu", "default")
    upstream = 3  # tasks, whose weights are added
    assert tasks["search"]["priority_weight"] == PRIORITY * (1 + upstream)


@happens(SHORT)
def test_the_label_of_a_search_shows_the_trial_while_it_is_trained(scenarios: Scenarios) -> None:
    watched = scenarios.outcome(SHORT)

    assert any(label and label.startswith("trial 0") for label in watched.labels), watched.labels
    search = next(task for task in watched.run.tasks() if task["task_id"] == "search")
    assert search["rendered_map_index"].startswith("trials 0 · best 0.")


def test_the_api_refuses_a_value_outside_the_form(night: Night) -> None:
    with pytest.raises(AirflowApiError, match=r"400 .*workers"):
        night.trigger(FORM_DAG, night.quick_form("refused", workers=1000))


@happens(unknown_key)
def test_check_names_an_unknown_key_in_its_log(scenarios: Scenarios) -> None:
    run = scenarios.outcome(unknown_key)

    assert (run.states()["check"], run.tries()["check"]) == ("failed", 1)
    assert "The run's conf has unknown keys." in run.log("check")
    assert "wokers: unknown; known here: " in run.log("check")


@happens(SHORT)
def test_check_warns_where_tasks_cannot_ask_for_the_pools(scenarios: Scenarios) -> None:
    run = scenarios.outcome(SHORT).run

    warnings = [line for line in run.log("check").splitlines() if '"level":"warning"' in line]
    assert len(warnings) == 1
    assert "The pools could not be checked" in warnings[0]
    assert "automl_cpu and automl_gpu" in warnings[0]
