"""A study under the KubernetesExecutor: its own code, and pods that are processes here.

Everything is real but the cluster, for which a double stands (`tests/cluster.py`): scheduler,
executor, watcher, policy, templates, and what a pod's container runs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from automl_airflow.local import LocalAirflow
from automl_airflow.pods import TEMPLATES
from automl_airflow.ports import Ports

from automl.domain.settings import Settings
from automl.storage.open import open_home
from benchmarks.servers import PostgresServer
from tests.cluster import NAMESPACE, Cluster, Node
from tests.digits import write_digits

pytestmark = pytest.mark.soak
_ROOT = Path(__file__).resolve().parents[2]
_PODS, _DAGS = _ROOT / "docker/kubernetes/pods", _ROOT / "dags"
DAG, STUDY = "automl_pods", "pods"
_STUDY = """\
name: pods
task: image_classification
data: {{source: {source}}}
search: {{time_limit: 90s, slice: 10s, workers: 2, resources: {{cpus: 1}}}}
final_fit: {{time_limit: 60s}}
schedule: null
"""


@dataclass(frozen=True)
class Outcome:
    """Outcome of the run."""

    cluster: Cluster
    state: str
    tasks: list[dict[str, Any]]
    scheduler_log: str
    home: Path


def _node(folder: Path, airflow: LocalAirflow, study_log: str) -> Node:
    secrets, config = folder / "secrets", folder / "config"
    for each in (secrets, config, folder / "pods"):
        each.mkdir()
    (secrets / "study_log").write_text(study_log)
    (secrets / "aws_credentials").write_text("")
    image = {
        "AIRFLOW_HOME": str(folder / "image"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(_DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "image/logs"),
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "OMP_NUM_THREADS": "1",
    }
    settings = {
        "AUTOML_HOME": str(folder / "home"),
        "AUTOML_SOURCES": str(folder),
        "AUTOML_STUDIES": str(folder / "studies"),
    }
    return Node(
        volumes={
            "airflow-config": config,
            "automl-secrets": secrets,
            "automl-studies": folder / "studies",
        },
        settings={"automl-settings": settings},
        replaced={"http://airflow-api-server:8080": airflow.url},
        env=image,
        folder=folder / "pods",
    )


def _airflow(folder: Path, database: str) -> LocalAirflow:
    env = {
        "AIRFLOW__CORE__EXECUTOR": "KubernetesExecutor",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
        "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": str(folder / "kube.yaml"),
        "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": NAMESPACE,
        "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_PODS_CREATION_BATCH_SIZE": "8",
        "AUTOML_STUDIES": str(folder / "studies"),
        TEMPLATES: str(_PODS),
    }
    # one slot: the two workers take turns
    slots = {"automl_gpu": 1}
    return LocalAirflow(folder / "airflow", _DAGS, env, slots=slots, ports=Ports())


@pytest.fixture(scope="module")
def outcome(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("kubernetes")
    (folder / "studies").mkdir()
    source = write_digits(folder / "few.npz", 300)
    (folder / "studies/pods.yaml").write_text(_STUDY.format(source=source))
    database = postgres_server.url(postgres_server.create_database())
    study_log = postgres_server.url(postgres_server.create_database())
    airflow = _airflow(folder, database.replace("://", "+psycopg2://"))
    with Cluster(_node(folder, airflow, study_log)) as cluster:
        cluster.write_config(folder / "kube.yaml")
        with airflow:
            airflow.client.wait_for_dag(DAG, 120)
            run_id = airflow.client.trigger(DAG)
            evict_a_search(cluster)
            state = airflow.client.wait(DAG, run_id, 600)
            tasks = airflow.client.tasks(DAG, run_id)
            await_end_of_pods(cluster)
            log = airflow.log_file("scheduler").read_text()
            yield Outcome(cluster, state, tasks, log, folder / "home")


def evict_a_search(cluster: Cluster) -> None:
    deadline_s = time.monotonic() + 300
    while True:
        running = cluster.names(dag_id=DAG, task_id="search")
        training = [name for name in running if "starts, attempt" in cluster.log(name)]
        if training:
            cluster.evict(training[0])
            return
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def await_end_of_pods(cluster: Cluster) -> None:
    deadline_s = time.monotonic() + 60
    while cluster.listed("")["items"] and time.monotonic() < deadline_s:
        time.sleep(0.5)


def test_the_study_has_a_champion(outcome: Outcome) -> None:
    assert outcome.state == "success", outcome.tasks
    store = open_home(Settings(str(outcome.home))).store
    assert b'"version"' in store.get(f"models/{STUDY}/champion.json").data


def test_trainings_have_pods_with_a_gpu_and_the_cpus_of_the_study(outcome: Outcome) -> None:
    kinds: Counter[tuple[str, str, str]] = Counter()
    for pod in outcome.cluster.created.values():
        (container,) = pod["spec"]["containers"]
        limits = container["resources"]["limits"]
        task = pod["metadata"]["annotations"]["task_id"]
        kinds[task, limits.get("nvidia.com/gpu", "0"), limits["cpu"]] += 1

    assert kinds["search", "1", "1"] >= 4  # the workers' turns, and one that was evicted
    assert kinds["final_fit", "1", "1"] >= 1
    rest = {kind for kind in kinds if kind[0] not in {"search", "final_fit"}}
    assert {(gpus, cpus) for _, gpus, cpus in rest} == {("0", "2")}


def test_slices_and_an_eviction_use_no_try(outcome: Outcome) -> None:
    assert len(outcome.cluster.evicted) == 1
    assert {task["try_number"] for task in outcome.tasks} == {1}
    assert "finished with state" not in outcome.scheduler_log


def test_no_pod_knows_airflows_database_or_its_secrets(outcome: Outcome) -> None:
    for pod in outcome.cluster.created.values():
        (container,) = pod["spec"]["containers"]
        names = {each["name"] for each in container["env"]}
        assert not [name for name in names if "SQL_ALCHEMY" in name or "SECRET" in name]


def test_no_pod_is_left(outcome: Outcome) -> None:
    assert outcome.cluster.listed("")["items"] == []
