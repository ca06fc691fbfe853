"""The DAG files: what they import, what they build, and how broken study files are shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("torch", "dask", "distributed", "boto3", "onnx", "onnxruntime", "sklearn", "pandas")
TASKS = [
    "check", "prepare", "open_run", "search", "choose", "final_fit", "export", "evaluate", "promote"
]  # fmt: skip

SCRIPT = """
import importlib.util, json, pathlib, sys, types
from airflow.serialization.serialized_objects import DagSerialization
from airflow.sdk import DAG
from airflow.timetables.base import TimeRestriction
from airflow.task.priority_strategy import validate_and_load_priority_weight_strategy

def weight(task):
    rule = validate_and_load_priority_weight_strategy(task.weight_rule)
    return rule.get_weight(types.SimpleNamespace(task=task))

def chain(dag):
    return sorted(dag.task_dict, key=lambda name: len(
        dag.task_dict[name].get_flat_relative_ids(upstream=True)))

def first(timetable):
    span = TimeRestriction(earliest=None, latest=None, catchup=False)
    found = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=span)
    return found and found.run_after.timestamp()

before = set(sys.modules)
found = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found.update({d.dag_id: d for d in vars(module).values() if isinstance(d, DAG)})
new = sorted(set(sys.modules) - before)
answer = {"modules": new, "dags": {}}
for dag_id, dag in found.items():
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    answer["dags"][dag_id] = {
        "order": chain(stored),
        "schedule": stored.timetable.summary, "first": first(stored.timetable),
        "catchup": stored.catchup, "max_active_runs": stored.max_active_runs,
        "max_active_tasks": stored.max_active_tasks,
        "paused": stored.is_paused_upon_creation, "start": str(stored.start_date),
        "params": list(stored.params), "timezone": str(getattr(dag.timetable, "timezone", "")),
        "pools": {t.task_id: t.pool for t in stored.tasks},
        "queues": {t.task_id: t.queue for t in stored.tasks},
        "retries": {t.task_id: t.retries for t in stored.tasks},
        "priority": {t.task_id: t.priority_weight for t in stored.tasks},
        "weight": {t.task_id: weight(t) for t in stored.tasks},
        "choose": [str(t.trigger_rule) for t in stored.tasks if t.task_id == "choose"],
        "upstream": {t.task_id: sorted(t.upstream_task_ids) for t in stored.tasks},
        "problems": list(getattr(dag.get_task("check"), "problems", [])),
    }
print(json.dumps(answer))
"""


def load_dags(studies: Path, home: Path, *, task_of: str | None = None) -> dict[str, Any]:
    """Return what a fresh interpreter finds in the DAG files.

    Args:
        studies: folder of the study files.
        home: Airflow's folder.
        task_of: the DAG whose task's process it is; None for the DAG processor.
    """
    wanted = {} if task_of is None else {"DAG_ID": task_of, "TASK_ID": "search"}
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AUTOML_STUDIES": str(studies),
        **{f"_AIRFLOW_PARSING_CONTEXT_{name}": value for name, value in wanted.items()},
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(REPOSITORY / "dags")],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def study(name: str, more: str = "") -> str:
    return f"name: {name}\ntask: image_classification\ndata: {{source: /data/{name}.csv}}\n{more}"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    studies = tmp_path_factory.mktemp("studies")
    (studies / "a.yaml").write_text(
        study("leaves", 'schedule: "0 1 * * *"\ntimezone: Europe/Berlin\nsearch: {priority: 7}\n')
    )
    (studies / "b.yaml").write_text(study("leaves", "schedule: 5 5 * * *"))
    (studies / "x.yaml").write_text(
        "name: c\ntask: image_classification\ndata: {sorce: x}\n"
        "schedule: 61 * * * *\ntimezone: Europe/Rome\n"
    )
    (studies / "y.yaml").write_text("name: 'd'  # so\nschedule: 30 4 * * *  # early\ntask: [un\n")
    (studies / "z.yaml").write_text("name: e\nschedule: null\n")
    (studies / "search.yaml").write_text("name: search\n")
    (studies / "cpu.yaml").write_text(study("cpu", "search: {workers: 40, resources: {gpus: 0}}\n"))
    return load_dags(studies, tmp_path_factory.mktemp("airflow"))


def test_dag_files_import_nothing_heavy(loaded: dict[str, Any]) -> None:
    assert [name for name in loaded["modules"] if name.split(".")[0] in HEAVY] == []


@pytest.mark.parametrize("dag_id", ["automl_search", "automl_leaves"])
def test_the_tasks_come_in_order_through_serialization(loaded: dict[str, Any], dag_id: str) -> None:
    assert loaded["dags"][dag_id]["order"] == TASKS


def test_pools_queues_and_rules_are_as_documented(loaded: dict[str, Any]) -> None:
    dag = loaded["dags"]["automl_leaves"]

    assert {task: pool for task, pool in dag["pools"].items() if pool != "default_pool"} == {
        "prepare": "automl_cpu", "search": "automl_gpu", "final_fit": "automl_gpu",
        "export": "automl_cpu", "evaluate": "automl_cpu",
    }  # fmt: skip
    assert [task for task, queue in dag["queues"].items() if queue == "gpu"] == [
        "search", "final_fit",
    ]  # fmt: skip
    assert dag["retries"] == dict.fromkeys(TASKS, 2) | {"search": 20}
    assert set(dag["priority"].values()) == {7}
    assert dag["choose"] == ["all_done_min_one_success"]
    assert dag["upstream"]["choose"] == ["open_run", "search"]


def test_a_study_without_gpus_takes_the_cpus_pool_and_machines(loaded: dict[str, Any]) -> None:
    dag = loaded["dags"]["automl_cpu"]

    assert {
        task: pool for task, pool in dag["pools"].items() if pool != "default_pool"
    } == dict.fromkeys(["prepare", "search", "final_fit", "export", "evaluate"], "automl_cpu")
    assert set(dag["queues"].values()) == {"default"}


@pytest.mark.parametrize(
    ("dag_id", "tasks"), [("automl_search", 64), ("automl_leaves", 16), ("automl_cpu", 40)]
)
def test_as_many_tasks_may_be_active_as_a_run_has_workers(
    loaded: dict[str, Any], dag_id: str, tasks: int
) -> None:
    assert loaded["dags"][dag_id]["max_active_tasks"] == tasks


@pytest.mark.parametrize("dag_id", ["automl_search", "automl_leaves"])
def test_a_final_fit_gets_its_slot_before_searches_of_equal_priority(
    loaded: dict[str, Any], dag_id: str
) -> None:
    weight = loaded["dags"][dag_id]["weight"]

    assert weight["final_fit"] > weight["search"]


def test_a_study_file_gives_an_unpaused_schedule_without_missed_runs(
    loaded: dict[str, Any],
) -> None:
    dag = loaded["dags"]["automl_leaves"]

    assert (dag["schedule"], dag["timezone"]) == ("0 1 * * *", "Europe/Berlin")
    assert (dag["start"], dag["catchup"], dag["paused"]) == ("None", False, False)
    assert dag["max_active_runs"] == 1


def test_a_study_that_appears_hours_after_its_time_waits_for_the_next_one(tmp_path: Path) -> None:
    past = datetime.now(UTC) - timedelta(minutes=90)  # a tenth of a day has 144
    (tmp_path / "a.yaml").write_text(study("late", f"schedule: {past.minute} {past.hour} * * *\n"))

    dag = load_dags(tmp_path, tmp_path / "airflow")["dags"]["automl_late"]

    assert dag["first"] > time.time()


def test_a_broken_file_has_the_dag_of_its_name_with_every_task(loaded: dict[str, Any]) -> None:
    dags = loaded["dags"]
    broken = [f"automl_{name}" for name in ("b", "c", "d", "e")]

    assert {*broken, "automl_search", "automl_leaves", "automl_cpu"} == {
        dag_id for dag_id in dags if not dag_id.startswith("automl_file.")
    }
    assert dags["automl_b"]["problems"] == ["name: 'leaves' is the name of a.yaml already"]
    assert any("did you mean 'source'" in problem for problem in dags["automl_c"]["problems"])
    assert "not valid YAML" in dags["automl_d"]["problems"][0]
    (reserved,) = (dags[dag_id] for dag_id in dags if dag_id.startswith("automl_file.search."))
    assert "is reserved" in reserved["problems"][0]
    for dag_id in broken:
        for same in ("order", "upstream", "pools", "queues", "choose", "retries"):
            assert dags[dag_id][same] == dags["automl_leaves"][same]


def test_a_broken_file_keeps_what_is_valid_of_its_schedule(loaded: dict[str, Any]) -> None:
    def schedule(name: str) -> tuple[str, str]:
        return loaded["dags"][name]["schedule"], loaded["dags"][name]["timezone"]

    assert schedule("automl_c") == ("0 1 * * *", "Europe/Rome")
    assert schedule("automl_d") == ("30 4 * * *", "UTC")
    assert schedule("automl_e")[0] == "None"
    assert schedule("automl_b") == ("5 5 * * *", "UTC")


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of study files and of Airflow, after a file was deleted that had a DAG."""
    studies, home = tmp_path_factory.mktemp("studies"), tmp_path_factory.mktemp("airflow")
    (studies / "a.yaml").write_text(study("leaves"))
    (studies / "b.yaml").write_text(study("roots"))
    load_dags(studies, home)
    (studies / "a.yaml").unlink()
    return studies, home


def test_the_dag_processor_keeps_the_dag_of_a_deleted_file(gone: tuple[Path, Path]) -> None:
    dags = load_dags(*gone)["dags"]

    assert dags.keys() == {"automl_search", "automl_leaves", "automl_roots"}
    assert dags["automl_leaves"]["schedule"] == "None"
    assert dags["automl_leaves"]["order"] == TASKS
    assert "the study file is gone" in dags["automl_leaves"]["problems"][0]
    assert dags["automl_roots"]["problems"] == []


@pytest.mark.parametrize("dag_id", ["automl_leaves", "automl_roots"])
def test_a_task_finds_its_dag_without_file_and_record_and_builds_no_other(
    dag_id: str, gone: tuple[Path, Path], tmp_path: Path
) -> None:
    dags = load_dags(gone[0], tmp_path, task_of=dag_id)["dags"]

    assert dags.keys() == {"automl_search", dag_id}
    assert dags[dag_id]["order"] == TASKS
    assert not [*tmp_path.glob("automl/*")]
