"""Production's shape on one machine: a study on CeleryExecutor, PostgreSQL, Valkey, S3 and Dask.

In the soak a turn of the scheduler's loop takes ten seconds while it searches, and twice as many
workers as the pool has slots want one: the scheduler could see tasks due again before it has heard
of their end.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from automl_airflow.pools import POOLS
from automl_airflow.stack import GPU_QUEUE, SOURCES_BUCKET, Stack
from automl_airflow.supervisor import Component

from automl.domain.settings import Settings
from automl.storage.open import open_home, open_store
from tests.digits import write_digits
from tests.e2e.test_shared_pool import Search, read_search
from tests.nights import FORM_DAG, Line, Night, NightRun
from tests.slow_scheduler import LOOP_S

STUDY = "on-the-stack"
SLOTS = 2
_DAGS = Path(__file__).resolve().parents[2] / "dags"


@dataclass(frozen=True)
class Load:
    """How much is searched, and how slow the scheduler is meanwhile."""

    workers: int
    limit_s: int
    slice_s: int
    loop_s: float


LOADS = [
    pytest.param(Load(2, 60, 15, 1), id="quick"),
    pytest.param(Load(4, 150, 10, LOOP_S), id="slow loop", marks=pytest.mark.soak),
]


@dataclass(frozen=True)
class Outcome:
    """What came of a study on the stack."""

    load: Load
    stack: Stack
    night: Night
    run: NightRun
    search: Search

    def scheduler_log(self) -> str:
        return (self.stack.folders.logs / "scheduler.log").read_text()


@pytest.fixture(scope="module", params=LOADS)
def outcome(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Outcome]:
    """The study, over, on a stack that serves still."""
    load: Load = request.param
    folder = tmp_path_factory.mktemp("stack")
    studies, few = folder / "studies", write_digits(folder / "few.npz", 200)
    studies.mkdir()
    env = {
        "AUTOML_SOURCES": str(folder),
        "AUTOML_STUDIES": str(studies),
        "OMP_NUM_THREADS": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": f"{load.loop_s:g}",
    }
    stack, slow = Stack(folder / "stack", _DAGS, env, SLOTS), folder / "slow"
    with pytest.MonkeyPatch.context() as own:
        own.setattr(stack.airflow, "component", slowed(stack, slow))
        for variable, value in {**stack.settings, "AWS_PROFILE": "default"}.items():
            own.setenv(variable, value)
        with stack, Line(stack.seaweedfs.endpoint) as line:  # nothing comes along the line
            open_store(f"s3://{SOURCES_BUCKET}").put("few.npz", few.read_bytes())
            home = open_home(Settings.from_environment(os.environ))
            night = Night(stack.airflow, home, line, folder, few, studies)
            stack.airflow.client.wait_for_dag(FORM_DAG)
            run = night.trigger(FORM_DAG, form(night, load))
            run.wait_for_task("open_run", "success")
            if load.loop_s == LOOP_S:
                slow.touch()
            run.wait_for_task("search", "running")
            run.wait_for_task("choose", "queued", "running", "success")
            slow.unlink(missing_ok=True)
            run.wait()
            events = (event for _, event in home.study_log(STUDY).read())
            yield Outcome(load, stack, night, run, read_search(events))
    stack.postgres.remove()


def form(night: Night, load: Load) -> dict[str, Any]:
    limits = {"time_limit": f"{load.limit_s}s", "slice": f"{load.slice_s}s"}
    source = f"s3://{SOURCES_BUCKET}/few.npz"
    return night.quick_form(STUDY, source=source, **limits, workers=load.workers, max_trials=1000)


def slowed(stack: Stack, while_there: Path) -> Any:
    """Return what gives the components of Airflow, with a scheduler that a file slows down."""
    component = stack.airflow.component

    def slow(*command: str) -> Component:
        found = component(*command)
        if command != ("scheduler",):
            return found
        module = [sys.executable, "-m", "tests.slow_scheduler", str(while_there)]
        return replace(found, command=module)

    return slow


def test_the_study_has_a_champion(outcome: Outcome) -> None:
    assert outcome.night.champion(STUDY).metrics["accuracy"].value > 0.2  # a guess has 0.1
    assert outcome.night.home.store.uri.startswith("s3://")


def test_trainings_run_on_the_gpu_worker_and_all_else_on_the_other(outcome: Outcome) -> None:
    queues = {task["task_id"]: task["queue"] for task in outcome.run.tasks()}

    assert {task for task, queue in queues.items() if queue == GPU_QUEUE} == {"search", "final_fit"}
    log = outcome.stack.folders.logs / "worker-gpu.log"
    assert log.read_text().count("Executing workload in Celery") >= outcome.load.workers + 1


def test_dask_prepares(outcome: Outcome) -> None:
    log = (outcome.stack.folders.logs / "dask-scheduler.log").read_text()

    assert "Receive client connection" in log


def test_waiting_between_slices_uses_no_try(outcome: Outcome) -> None:
    assert {task["try_number"] for task in outcome.run.tasks()} == {1}
    assert "finished with state" not in outcome.scheduler_log()


def test_no_worker_runs_twice_at_once(outcome: Outcome) -> None:
    spans = outcome.search.spans
    for worker in {span.worker for span in spans}:
        own = [span for span in spans if span.worker == worker]
        assert all(one.end_s <= next_.start_s for one, next_ in itertools.pairwise(own))

    at_once = [sum(s.start_s <= span.start_s < s.end_s for s in spans) for span in spans]
    assert max(at_once) == SLOTS


def test_workers_give_their_slots_back(outcome: Outcome) -> None:
    log = (outcome.stack.folders.logs / "worker-gpu.log").read_text()

    assert log.count("final_state=up_for_reschedule") >= outcome.load.workers
    assert len({span.worker for span in outcome.search.spans}) >= SLOTS


def test_more_slots_than_places_are_told(outcome: Outcome) -> None:
    gpu_pool = next(name for name in POOLS if "gpu" in name)
    assert asked(outcome.stack) == []
    outcome.stack.airflow.client.make_pool(gpu_pool, SLOTS + 3, "too many")

    (warning,) = asked(outcome.stack)
    assert f"The pool {gpu_pool} has {SLOTS + 3} slots" in warning
    assert f"the workers of Celery's queue {GPU_QUEUE} run {SLOTS} tasks at once" in warning


def asked(stack: Stack) -> list[str]:
    """Return what `automl doctor` asks for."""
    command = [sys.executable, "-m", "automl_airflow.slots"]
    told = subprocess.run(
        command, env=dict(stack.airflow.env), capture_output=True, text=True, check=True
    )
    warnings: list[str] = json.loads(told.stdout.splitlines()[-1])["warnings"]
    return warnings


def test_no_secret_can_be_read_by_others_or_is_in_an_argument(outcome: Outcome) -> None:
    folder = outcome.stack.folders.secrets
    secrets = {path.read_text().strip() for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}

    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_text()
        except OSError:
            continue
        assert not [secret for secret in secrets if secret in arguments]


def test_the_end_leaves_nothing_behind(outcome: Outcome) -> None:
    stack = outcome.stack
    ports = [stack.airflow.port, stack.postgres.port, stack.valkey.port]
    stack.stop()

    assert stack.supervisor.reports() == []
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
