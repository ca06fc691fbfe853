"""Real processes that want the same GPUs; the GPUs themselves are pretended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest

from automl.doctor.surroundings import examine_surroundings
from automl.domain.settings import Settings
from automl.domain.trial import Outcome
from automl.machine.gpus.ledger import Claim, GpuLedger, GpuShare, locks_folder
from automl.machine.process import StepResult, run_step
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.steps import prepare
from automl.steps.local_run import run_study
from automl.steps.study_file import load_study_file
from tests.digits import sizes_of, study_of_digits
from tests.gpus import machine_with, pretended_gpus
from tests.quiet import Quiet

WHOLE = Claim(None, 1, "a test")
GPUS = 3
_WITHIN_S = 60.0


def child(folder: Path, gpus: int, need_gib: int, most: int, rounds: int) -> subprocess.Popen[str]:
    numbers = [str(number) for number in (gpus, need_gib, most, rounds)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.gpu_child", str(folder), *numbers],
        stdout=subprocess.PIPE,
        text=True,
    )


def take_whole(folder: Path, gpus: int) -> GpuShare | None:
    ledgers = [GpuLedger(folder / "locks", gpu) for gpu in pretended_gpus(gpus)]
    return next((share for ledger in ledgers if (share := ledger.take(WHOLE))), None)


@pytest.mark.parametrize(
    ("gpus", "needs_gib", "most"),
    [(GPUS, [0] * 8, 4), (1, [5, 5, 10, 15, 20, 25, 30, 0], 3)],
    ids=["whole", "shared"],
)
def test_processes_never_hold_more_of_a_gpu_than_it_has(
    tmp_path: Path, gpus: int, needs_gib: list[int], most: int
) -> None:
    for gpu in pretended_gpus(gpus):
        (tmp_path / "busy" / gpu.uuid).mkdir(parents=True)

    children = [child(tmp_path, gpus, need, most, rounds=6) for need in needs_gib]

    assert [process.wait(_WITHIN_S) for process in children] == [0] * len(needs_gib)
    for process in children:
        assert process.stdout is not None
        process.stdout.close()


def test_the_kernel_frees_the_gpu_of_a_killed_process_though_its_child_lives(
    tmp_path: Path,
) -> None:
    holder = child(tmp_path, 1, 0, 1, rounds=0)
    assert holder.stdout is not None
    with holder, ExitStack() as after:
        after.callback(holder.kill)
        index, grandchild = map(int, holder.stdout.readline().split())
        after.callback(os.kill, grandchild, signal.SIGKILL)
        assert index == 0
        assert take_whole(tmp_path, 1) is None

        holder.kill()
        holder.wait()

        # a kernel under load resumes who spawned before the spawned has closed on exec
        limit_s = time.monotonic() + _WITHIN_S
        while (share := take_whole(tmp_path, 1)) is None:
            assert time.monotonic() < limit_s
            time.sleep(0.01)
        after.enter_context(share)
        os.kill(grandchild, 0)  # it lives


# --- steps ---


class Machine:
    """A machine with pretended GPUs on which a run's steps are called.

    Args:
        context: the run's context.
        folder: for the command that lists the GPUs, and their locks.
        gpus: how many.
    """

    def __init__(self, context: StepContext, folder: Path, gpus: int) -> None:
        self.environment = {
            **os.environ, **machine_with(folder, pretended_gpus(gpus)),
            "AUTOML_HOME": context.settings.home,
        }  # fmt: skip
        self.lines: list[str] = []
        self.stop = Event()
        self._context = context

    def call(self, step: str, origin: str, **variables: str) -> StepResult:
        return run_step(
            step,
            {
                "spec": self._context.spec.model_dump(mode="json", by_alias=True),
                "run": self._context.run,
                "worker": 0,
                "origin": origin,
            },
            env={**self.environment, **variables},
            timeout_s=_WITHIN_S,
            on_line=self.lines.append,
            stop=self.stop.is_set,
        )

    def wait_for(self, pattern: str) -> None:
        limit_s = time.monotonic() + _WITHIN_S
        while not any(re.search(pattern, line) for line in list(self.lines)):
            assert time.monotonic() < limit_s, self.lines
            time.sleep(0.02)

    def place_of(self, pattern: str) -> int:
        """Return the number of the first line that the pattern fits."""
        return next(n for n, line in enumerate(self.lines) if re.search(pattern, line))


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    """An open run of one trial."""
    spec = study_of_digits(
        tmp_path, rows=150, search={"time_limit": "60s", "max_trials": 1, "workers": 1}
    )
    context = StepContext.open(Settings(str(tmp_path / "home")), spec, "one", "test")
    manifest = prepare.prepare(context, Quiet().items)
    with RunLease(context):
        opening.open_run(context, manifest.id, sizes_of(context, manifest.id))
    return context


def held_by_me(machine: Mapping[str, str]) -> GpuShare:
    (gpu,) = pretended_gpus(1)
    share = GpuLedger(locks_folder(machine), gpu).take(WHOLE)
    assert share is not None
    return share


def test_a_worker_holds_its_gpu_before_torch_is_imported(
    context: StepContext, tmp_path: Path
) -> None:
    machine = Machine(context, tmp_path, 1)

    result = machine.call("run_worker", "test", PYTHONPROFILEIMPORTTIME="1")

    assert result.result["trials"] == [0]
    held = machine.place_of(r"holds GPU 0 \(Pretended 40GB, 40 GiB\)")
    assert held < machine.place_of(r"^import time:.*\| +torch(\.|$)")
    machine.wait_for("torch .* cannot use GPU 0 .* and trains on the CPU")


def test_a_worker_that_waits_for_a_gpu_ends_when_it_is_asked_to(
    context: StepContext, tmp_path: Path
) -> None:
    machine = Machine(context, tmp_path, 1)
    with held_by_me(machine.environment), ThreadPoolExecutor(1) as pool:
        end: Future[StepResult] = pool.submit(machine.call, "run_worker", "airflow:test")
        machine.wait_for(rf"waits for a GPU: GPU 0 .* is held by process {os.getpid()} \(a test\)")
        started_s = time.monotonic()
        machine.stop.set()
        result = end.result()

    assert time.monotonic() - started_s < 4
    assert (result.signal, result.failure, result.stopped) == (None, None, True)
    assert result.result == {
        "state": "slice_ended", "trials": [], "best": None, "label": "trials none",
    }  # fmt: skip
    assert context.record.refresh().trials == ()


def test_a_worker_gives_its_slot_back_when_no_gpu_becomes_free_in_a_slice(
    context: StepContext, tmp_path: Path
) -> None:
    search = context.spec.search.model_dump(mode="json") | {"slice": "2s"}
    brief = study_of_digits(tmp_path, rows=150, search=search)
    machine = Machine(StepContext.open(context.settings, brief, "one", "test"), tmp_path, 1)
    with held_by_me(machine.environment):
        result = machine.call("run_worker", "airflow:test")

    assert result.result["state"] == "slice_ended"
    machine.wait_for("No GPU became free")


def test_a_study_that_wants_no_gpu_takes_none(context: StepContext, tmp_path: Path) -> None:
    search = context.spec.search.model_dump(mode="json") | {"resources": {"gpus": 0}}
    cpu_only = study_of_digits(tmp_path, rows=150, search=search)
    machine = Machine(StepContext.open(context.settings, cpu_only, "one", "test"), tmp_path, 1)
    with held_by_me(machine.environment):
        result = machine.call("run_worker", "test")

    assert result.result["trials"] == [0]
    machine.wait_for("holds no GPU and trains on the CPU")


def test_a_local_run_holds_gpus_for_what_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listening(Quiet):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def line(self, text: str) -> None:
            self.lines.append(text)

    for name, value in machine_with(tmp_path, pretended_gpus(1)).items():
        monkeypatch.setenv(name, value)
    spec = study_of_digits(
        tmp_path, rows=150, search={"time_limit": "60s", "max_trials": 1, "workers": 2}
    )
    said = Listening()

    document = run_study(Settings(str(tmp_path / "home")), spec, said)

    assert document["version"] == 1
    holding = [line.split(":")[0] for line in said.lines if "holds GPU 0" in line]
    assert holding[-1] == "final fit"
    assert set(holding[:-1]) <= {"worker 0", "worker 1"}
    assert any(re.search("waits for a GPU.* is held by process .*worker", x) for x in said.lines)
    study = StepContext.open(Settings(str(tmp_path / "home")), spec, "x", "x").record.refresh()
    assert [trial.outcome for trial in study.trials] == [Outcome.COMPLETED]


def test_doctor_shows_gpus_and_who_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in machine_with(tmp_path, pretended_gpus(2)).items():
        monkeypatch.setenv(name, value)
    (first, _) = pretended_gpus(2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    share = GpuLedger(locks_folder(os.environ), first).take(WHOLE)
    assert share is not None

    with share:
        found = {finding.check: finding for finding in examine_surroundings(load_study_file)}

    assert (
        f"GPU 0 (Pretended 40GB, 40 GiB) is held by process {os.getpid()}" in found["gpu 0"].found
    )
    assert found["gpu 1"].found.endswith("is free")


def test_doctor_names_a_driver_that_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in machine_with(tmp_path, [], says="no driver", exit_code=9).items():
        monkeypatch.setenv(name, value)

    (finding,) = [f for f in examine_surroundings(load_study_file) if f.check.startswith("gpu")]

    assert not finding.ok
    assert "exit code 9: no driver" in finding.found
    assert "search.resources.gpus" in finding.remedy
