"""A study within another team's DAG."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_dags import TASKS

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = """
import json, sys
from datetime import datetime
from pathlib import Path
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
from automl.errors import ConfigError
from automl_airflow.task_group import study_task_group

def told(dag):
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    return {t.task_id: {
        "upstream": sorted(t.upstream_task_ids), "pool": t.pool, "queue": t.queue,
        "retries": t.retries, "rule": str(t.trigger_rule), "weight": t.priority_weight,
        "problems": list(getattr(dag.get_task(t.task_id), "problems", [])),
    } for t in stored.tasks}

bag = DagBag(sys.argv[1])
answer = {"errors": bag.import_errors, "example": told(bag.dags["greenhouse"])}
folder = Path(sys.argv[2])
(folder / "cress.yaml").write_text(
    "name: cress\\ntask: image_classification\\ndata: {source: x.csv}\\n"
    "search: {priority: 5, resources: {gpus: 0}}\\n")
(folder / "broken.yaml").write_text("name: [")
with DAG("farm", schedule=None, default_args={"retries": 7, "owner": "farm"}) as farm:
    before = EmptyOperator(task_id="before")
    one = study_task_group("one", study_file=folder / "cress.yaml", default_args={"retries": 1})
    two = study_task_group("two", study_file=folder / "broken.yaml")
    three = study_task_group("three", spec={"name": "x"})
    before >> one >> two >> three
answer["farm"] = told(farm)
answer["owner"] = farm.get_task("one.prepare").owner
answer["refused"] = []
for arguments in ({}, {"study_file": "x", "spec": {}}):
    try:
        with DAG("no", schedule=None):
            study_task_group("g", **arguments)
    except ConfigError as error:
        answer["refused"].append(str(error))
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    studies = tmp_path_factory.mktemp("studies")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(EXAMPLES), str(studies)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_the_example_has_a_search_between_its_own_tasks(seen: dict[str, Any]) -> None:
    tasks = seen["example"]

    assert seen["errors"] == {}
    assert set(tasks) == {"fetch", "announce", *(f"search.{task}" for task in TASKS)}
    assert tasks["search.check"]["upstream"] == ["fetch"]
    assert tasks["search.choose"]["upstream"] == ["search.open_run", "search.search"]
    assert tasks["announce"]["upstream"] == ["search.promote"]
    assert tasks["search.check"]["problems"] == []


def test_pools_rules_and_weights_are_those_of_the_platform(seen: dict[str, Any]) -> None:
    tasks = seen["example"]

    assert tasks["search.search"]["pool"] == tasks["search.final_fit"]["pool"] == "automl_gpu"
    assert tasks["search.search"]["queue"] == "gpu"
    assert tasks["search.prepare"]["pool"] == "automl_cpu"
    assert tasks["search.choose"]["rule"] == "all_done_min_one_success"
    assert tasks["search.export"]["retries"] == 2
    farm = seen["farm"]
    assert farm["one.search"]["pool"] == "automl_cpu"  # it asks for no GPU
    assert farm["one.search"]["weight"] == 5
    assert (farm["one.export"]["retries"], farm["two.export"]["retries"]) == (1, 2)
    assert seen["owner"] == "farm"


def test_a_broken_study_does_not_break_the_dag_around_it(seen: dict[str, Any]) -> None:
    farm = seen["farm"]

    assert farm["two.check"]["upstream"] == ["one.promote"]
    assert "not valid YAML" in farm["two.check"]["problems"][0]
    assert {"task: this key is required", "data: this key is required"} == set(
        farm["three.check"]["problems"]
    )
    assert set(farm) == {"before"} | {
        f"{group}.{task}" for group in ("one", "two", "three") for task in TASKS
    }


def test_either_a_file_or_a_mapping_is_given(seen: dict[str, Any]) -> None:
    neither, both = seen["refused"]

    assert "has neither of study_file and spec" in neither
    assert "has both of study_file and spec" in both
