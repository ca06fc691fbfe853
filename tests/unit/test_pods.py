"""Pods of the KubernetesExecutor: by its own code, from the templates that are delivered.

No cluster is here: the executor's own code makes the pods, and Kubernetes' schemas judge them.
"""

from __future__ import annotations

import json
import pickle
import queue
import subprocess
import sys
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import yaml
from automl_airflow.dag_builder import search_dag, study_dag, without_gpu
from automl_airflow.pods import CPUS, TEMPLATES, executor_config, resolved
from automl_airflow.policy import task_instance_mutation_hook
from automl_airflow.study_files import read_study_files

from automl.steps.specs import PIPELINE, STEPS, Compute

PODS = Path(__file__).parents[2] / "docker/kubernetes/pods"
ENVIRONMENT = {TEMPLATES: str(PODS)}
RUNNER = ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string"]


def built(config: dict[str, Any] | None) -> dict[str, Any]:
    """Return the pod that the executor would create for a task's workload, as JSON."""
    from airflow.executors import workloads
    from airflow.executors.workloads.base import BundleInfo
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.providers.cncf.kubernetes.executors.kubernetes_executor import KubernetesExecutor
    from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import (
        AirflowKubernetesScheduler,
    )
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

    task = TaskInstanceDTO(
        id=UUID(int=1), dag_version_id=UUID(int=2), task_id="search", dag_id="automl_digits",
        run_id="manual__2026", try_number=1, map_index=0, pool_slots=1, queue="gpu",
        priority_weight=1, executor_config=config,
    )  # fmt: skip
    workload = workloads.ExecuteTask(
        ti=task, dag_rel_path=PurePosixPath("automl_studies.py"), log_path="1.log", token="",
        bundle_info=BundleInfo(name="dags-folder", version=None),
    )  # fmt: skip
    make: Any = KubernetesExecutor  # it has no types
    executor = make()
    executor.scheduler_job_id, executor.task_queue = "1", queue.Queue()
    executor.queue_workload(workload, session=None)
    executor._process_workloads([workload])
    # Of the executor's other half the part that makes pods; the rest of it talks to a cluster.
    scheduler = object.__new__(AirflowKubernetesScheduler)
    scheduler.kube_config, scheduler.namespace = executor.kube_config, "automl"
    scheduler.scheduler_job_id, scheduler.supports_task_instance_uuid = "1", False
    job = pickle.loads(pickle.dumps(executor.task_queue.get_nowait()))  # noqa: S301 - as its queue does
    pod = scheduler._build_pod_request(job)
    document: dict[str, Any] = PodGenerator.serialize_pod(pod)
    return document


def validated(document: dict[str, Any], folder: Path) -> None:
    """Let the schemas of Kubernetes judge a document."""
    path = folder / "pod.yaml"
    path.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.fixture
def instance() -> Any:
    def make(config: dict[str, Any] | None, dag_id: str = "automl_digits") -> Any:
        task = SimpleNamespace(weight_rule=SimpleNamespace(get_weight=lambda _: 1))
        return SimpleNamespace(
            dag_id=dag_id,
            pool="automl_gpu",
            queue="gpu",
            priority_weight=1,
            task=task,
            executor_config=config,
        )

    return make


def test_a_training_gets_the_pod_with_a_gpu_and_the_cpus_that_its_study_asks_for(
    instance: Any, tmp_path: Path
) -> None:
    task = instance(executor_config(STEPS["run_worker"], 6, ENVIRONMENT))
    for _ in range(2):  # Airflow calls the policy more than once for an instance
        task_instance_mutation_hook(task, None)

    pod = built(task.executor_config)

    container = pod["spec"]["containers"][0]
    assert container["image"] == "registry.example.com/automl-airflow:cuda"
    assert container["args"][:-1] == RUNNER
    assert container["resources"] == {
        "limits": {"nvidia.com/gpu": "1", "cpu": "6", "memory": "16Gi"},
        "requests": {"cpu": "6", "memory": "16Gi"},
    }
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {each["key"] for each in pod["spec"]["tolerations"]} == {"nvidia.com/gpu"}
    assert pod["metadata"]["namespace"] == "automl"
    validated(pod, tmp_path)


@pytest.mark.parametrize("step", [step.name for step in PIPELINE])
def test_every_step_has_the_template_of_its_queue(step: str, tmp_path: Path) -> None:
    pod = built(executor_config(STEPS[step], None, ENVIRONMENT))

    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (STEPS[step].device is not Compute.NONE)
    validated(pod, tmp_path)


def test_a_study_on_cpus_trains_in_the_pod_without_a_gpu(instance: Any) -> None:
    step = without_gpu(STEPS["final_fit"])
    task = instance(executor_config(step, 3, ENVIRONMENT))
    task_instance_mutation_hook(task, None)

    container = built(task.executor_config)["spec"]["containers"][0]

    assert container["image"] == "registry.example.com/automl-airflow:cpu"
    assert container["resources"]["limits"] == {"cpu": "3", "memory": "8Gi"}


def test_the_form_decides_about_gpus_and_cpus_of_its_run(instance: Any) -> None:
    task = instance(executor_config(STEPS["run_worker"], None, ENVIRONMENT), "automl_search")
    run = SimpleNamespace(conf={"resources_gpus": 0, "resources_cpus": 5})
    for _ in range(2):
        task_instance_mutation_hook(task, run)

    container = built(task.executor_config)["spec"]["containers"][0]

    assert (task.pool, task.queue) == ("automl_cpu", "default")
    assert container["resources"]["limits"] == {"cpu": "5", "memory": "8Gi"}


def test_a_pods_override_survives_airflows_database(instance: Any) -> None:
    from airflow.utils.sqlalchemy import ExecutorConfigType
    from sqlalchemy.dialects import sqlite

    task = instance(executor_config(STEPS["run_worker"], 6, ENVIRONMENT))
    task_instance_mutation_hook(task, None)
    kind, dialect = ExecutorConfigType(), sqlite.dialect()
    stored = kind.bind_processor(dialect)(task.executor_config)  # type: ignore[no-untyped-call]

    read = kind.result_processor(dialect, None)(stored)  # type: ignore[no-untyped-call]

    assert built(read)["spec"] == built(task.executor_config)["spec"]


def test_dags_name_templates_and_numbers_and_import_no_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TEMPLATES, str(PODS))
    (tmp_path / "digits.yaml").write_text(
        "name: digits\ntask: image_classification\ndata: {source: /data/x.csv}\n"
        "search: {resources: {cpus: 3}}\n"
    )
    (file,) = read_study_files(tmp_path)

    tasks = study_dag(file).task_dict

    assert tasks["check"].executor_config == {"pod_template_file": str(PODS / "cpu.yaml")}
    search = tasks["search"].partial_kwargs["executor_config"]  # type: ignore[union-attr]
    assert search == {"pod_template_file": str(PODS / "gpu.yaml"), CPUS: 3}
    json.dumps(search)
    assert search_dag(tmp_path).task_dict["final_fit"].executor_config == {
        "pod_template_file": str(PODS / "gpu.yaml"),
        CPUS: None,
    }


def test_nothing_of_kubernetes_is_imported_where_dags_are_made() -> None:
    code = (
        "import sys; from pathlib import Path; from automl_airflow.dag_builder import search_dag;"
        "search_dag(Path('/nowhere')); import automl_airflow.policy;"
        "sys.exit(any(name.partition('.')[0] == 'kubernetes' for name in sys.modules))"
    )
    made = subprocess.run([sys.executable, "-c", code], check=False)

    assert made.returncode == 0


def test_without_templates_tasks_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert executor_config(STEPS["run_worker"], 6, {}) is None

    monkeypatch.delenv(TEMPLATES, raising=False)
    assert search_dag(Path("/nowhere")).task_dict["final_fit"].executor_config == {}


def test_others_tasks_keep_their_pods(instance: Any) -> None:
    config = {"pod_template_file": "/theirs.yaml"}
    task = instance(config, "theirs")
    task_instance_mutation_hook(task, None)

    assert task.executor_config is config


@pytest.mark.parametrize(
    "text",
    [None, "spec: [", "kind: Pod\n", "spec: {containers: []}", "spec: {containers: [base]}"],
)
def test_a_template_that_cannot_be_read_is_left_to_the_executor(
    text: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if text is not None:
        (tmp_path / "gpu.yaml").write_text(text)
    config = executor_config(STEPS["run_worker"], 6, {TEMPLATES: str(tmp_path)})
    assert config is not None

    assert "pod_override" not in resolved(config, {})
    assert "is made by" in caplog.text


def test_a_relative_folder_of_templates_is_refused() -> None:
    with pytest.raises(Exception, match="use an absolute folder"):
        executor_config(STEPS["check"], None, {TEMPLATES: "pods"})
