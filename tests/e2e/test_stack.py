"""Production's shape on one machine: a study on CeleryExecutor, PostgreSQL, Valkey, S3 and Dask.

Three injections of the drill hit the search; a worker whose training is killed waits for a moment
without a slot. In the soak the slices make all workers wait, of which there are twice as many as
slots, while a turn of the scheduler's loop takes ten seconds: it could see tasks due again before
it has heard of their end. Once Airflow's settings tell how slow the loop is, and once they do not.
"""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from automl_airflow import commands
from automl_airflow.pools import NAMES
from automl_airflow.stack import GPU_QUEUE, Stack
from automl_airflow.supervisor import MARK

from automl.steps.specs import Pool
from tests.drill.deaths import KilledScheduler, KilledTraining, RestartedValkey
from tests.drill.injection import Injection
from tests.drill.site import Site
from tests.drill.strikes import Strike, strike
from tests.drill.verdict import counted, faults_of_log
from tests.e2e.test_shared_pool import Search, read_search
from tests.nights import FORM_DAG, NightRun
from tests.slow_scheduler import LOOP_S
from tests.stacks import SLOTS, SOURCE, StackNight, slow_scheduler, stack_night

STUDY = "on-the-stack"
COMPONENTS = [
    "postgres", "valkey", "seaweedfs", "dask-scheduler", "dask-worker-1", "dask-worker-2",
    "api-server", "scheduler", "dag-processor", "triggerer", "worker-default", "worker-gpu",
]  # fmt: skip


@dataclass(frozen=True)
class Load:
    """Load of the stack: how much is searched, and how slow the scheduler is meanwhile.

    Attributes:
        workers: of the study.
        search: how long it may take, in the form's fields.
        told_s: how long a turn of the scheduler's loop takes, as its settings have it.
        is_slow: whether a turn takes ten seconds.
        most_tries: of a worker.
    """

    workers: int
    search: Mapping[str, object]
    told_s: float = 1.0
    is_slow: bool = False
    most_tries: int = 1


INJECTIONS: tuple[type[Injection], ...] = (KilledTraining, RestartedValkey, KilledScheduler)
FOUR_TRIALS = {"max_trials": 4}  # however long they take
TIMED = {"time_limit": "150s", "slice": "10s", "max_trials": 1000}
LOADS = [
    pytest.param(Load(2, FOUR_TRIALS), id="quick"),
    pytest.param(Load(4, TIMED, LOOP_S, is_slow=True), id="slow loop", marks=pytest.mark.soak),
    # waits of five seconds: tries may be used up, nothing runs twice
    pytest.param(
        Load(4, TIMED, is_slow=True, most_tries=20), id="untold slow loop", marks=pytest.mark.soak
    ),
]


@dataclass(frozen=True)
class Outcome:
    """Outcome of a study on the stack, which serves still."""

    load: Load
    served: StackNight
    run: NightRun
    search: Search
    strikes: Sequence[Strike]

    @property
    def stack(self) -> Stack:
        return self.served.stack

    def log(self, component: str) -> str:
        return (self.stack.folders.logs / f"{component}.log").read_text()


@pytest.fixture(scope="module", params=LOADS)
def outcome(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Outcome]:
    """The study, over, on a stack that serves still."""
    load: Load = request.param
    folder = tmp_path_factory.mktemp("stack")
    slow = folder / "slow"
    idle = {"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": f"{load.told_s:g}"}
    with stack_night(folder, idle, slow_scheduler(slow) if load.is_slow else ()) as served:
        night = served.night
        form = night.quick_form(STUDY, source=SOURCE, workers=load.workers, **load.search)
        run = night.trigger(FORM_DAG, form)
        run.wait_for_task("open_run", "success")
        strikes = []
        if load.is_slow:
            slow.touch()
        else:
            site = Site(served.stack, night, (STUDY,))
            strikes = [strike(site, n, kind) for n, kind in enumerate(INJECTIONS, start=1)]
        run.wait_for_task("choose", "queued", "running", "success")
        slow.unlink(missing_ok=True)
        run.wait()
        events = (event for _, event in night.home.study_log(STUDY).read())
        yield Outcome(load, served, run, read_search(events), strikes)


def test_injections_are_got_over(outcome: Outcome) -> None:
    assert [each.fault for each in outcome.strikes] == [""] * len(outcome.strikes)

    events = outcome.served.night.home.study_log(STUDY).read()
    assert list(faults_of_log(STUDY, events)) == []
    found = counted(events)
    assert found.expected == found.counted > 0


def test_the_study_has_a_champion(outcome: Outcome) -> None:
    night = outcome.served.night
    assert night.champion(STUDY).metrics["accuracy"].value > 0.2  # a guess has 0.1
    assert night.home.store.uri.startswith("s3://")


def test_trainings_run_on_the_gpu_worker_and_all_else_on_the_other(outcome: Outcome) -> None:
    queues = {task["task_id"]: task["queue"] for task in outcome.run.tasks()}

    assert {task for task, queue in queues.items() if queue == GPU_QUEUE} == {"search", "final_fit"}
    executed = outcome.log("worker-gpu").count("Executing workload in Celery")
    assert executed >= outcome.load.workers + 1


def test_dask_prepares(outcome: Outcome) -> None:
    assert "Receive client connection" in outcome.log("dask-scheduler")


def test_waiting_without_a_slot_uses_no_try(outcome: Outcome) -> None:
    tries = outcome.run.tries()
    assert tries.pop("search") <= outcome.load.most_tries
    assert set(tries.values()) == {1}
    if outcome.load.most_tries == 1:
        assert "finished with state" not in outcome.log("scheduler")


def test_no_worker_runs_twice_at_once(outcome: Outcome) -> None:
    spans = outcome.search.spans
    for worker in {span.worker for span in spans}:
        own = [span for span in spans if span.worker == worker]
        assert all(one.end_s <= next_.start_s for one, next_ in itertools.pairwise(own))

    at_once = [sum(s.start_s <= span.start_s < s.end_s for s in spans) for span in spans]
    assert max(at_once) <= SLOTS


def test_workers_keep_all_their_slots_after_a_restart_of_the_broker(outcome: Outcome) -> None:
    for worker in ("worker-default", "worker-gpu"):
        assert "reducing the prefetch count" not in outcome.log(worker)


def test_workers_give_their_slots_back(outcome: Outcome) -> None:
    assert "final_state=up_for_reschedule" in outcome.log("worker-gpu")
    if outcome.load.is_slow:  # else one may have made all four trials
        assert len({span.worker for span in outcome.search.spans}) == outcome.load.workers


def test_more_slots_than_places_are_told(outcome: Outcome) -> None:
    gpu_pool, more = NAMES[Pool.GPU], SLOTS + 3
    assert "has 2 slots" not in outcome.run.log("check")
    outcome.stack.airflow.client.make_pool(gpu_pool, more, "too many")

    (warning,) = asked(outcome.stack)
    assert f"The pool {gpu_pool} has {more} slots" in warning
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


def test_the_status_names_all_parts(outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    commands.status(outcome.served.folder, "stack")
    told = capsys.readouterr().out
    assert outcome.stack.airflow.url in told
    parts = [line.split()[:2] for line in told.splitlines() if line.startswith("  ")]
    assert parts == [[name, "healthy"] for name in COMPONENTS]


def test_whatever_runs_can_be_found_by_its_mark(outcome: Outcome) -> None:
    supervisor = outcome.stack.supervisor
    mark = f"{MARK}={supervisor.mark}".encode()
    hidden = [
        process.name()
        for report in supervisor.reports()
        for process in family(report.pid)
        if mark not in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    ]
    assert set(hidden) <= {"postgres"}  # which shows it in the first of them
    assert len(hidden) == len(family(supervisor.reports()[0].pid)) - 1


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def test_the_end_leaves_nothing_behind(outcome: Outcome) -> None:
    stack = outcome.stack
    ports = [stack.airflow.port, stack.postgres.port, stack.valkey.port]
    left = [process for report in stack.supervisor.reports() for process in family(report.pid)]
    outcome.served.stop()

    assert stack.supervisor.reports() == []
    assert [process for process in left if process.is_running()] == []
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
