"""Trigger rules of a search, by Airflow's own decisions about what runs after what."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.unit.test_dags import TASKS

DAG_FILE = """
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from automl_airflow.dag_builder import Wiring, wire
from automl_airflow.operator import StepOperator

RESULTS = {"check": {}, "prepare": {"snapshot": "s"}, "open_run": [0, 1]}

def execute(self, context):
    if self.step == self.dag.dag_id.removeprefix("fails-"):
        raise AirflowFailException("on purpose")
    return RESULTS.get(self.step)

StepOperator.execute = execute  # the steps themselves have tests of their own
for name in ("fails-check", "fails-open_run", "fails-run_worker"):
    with DAG(name, schedule=None) as dag:
        wire(Wiring(study_file="/x.yaml"))
    globals()[name] = dag
"""
SCRIPT = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import initdb

initdb()
answer = {}
for name, dag in DagBag(sys.argv[1]).dags.items():
    run = dag.test()
    answer[name] = {"run": [str(run.state)]}
    for task in run.get_task_instances():
        answer[name].setdefault(task.task_id, []).append(str(task.state))
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    home, dags = tmp_path_factory.mktemp("airflow"), tmp_path_factory.mktemp("dags")
    (dags / "three.py").write_text(DAG_FILE)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(dags)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, dict[str, list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_nothing_runs_after_a_refused_check(states: dict[str, dict[str, list[str]]]) -> None:
    assert states["fails-check"] == {
        "run": ["failed"], "check": ["failed"],
        **{task: ["upstream_failed"] for task in TASKS if task != "check"},
    }  # fmt: skip


def test_nothing_is_chosen_in_a_run_that_was_not_opened(
    states: dict[str, dict[str, list[str]]],
) -> None:
    seen = states["fails-open_run"]

    assert (seen["run"], seen["open_run"]) == (["failed"], ["failed"])
    assert seen["choose"] == seen["search"] == seen["promote"] == ["upstream_failed"]


def test_failed_workers_of_an_opened_run_leave_the_choice_to_the_log(
    states: dict[str, dict[str, list[str]]],
) -> None:
    seen = states["fails-run_worker"]

    assert seen["search"] == ["failed", "failed"]
    assert (seen["choose"], seen["promote"], seen["run"]) == (["success"],) * 3
