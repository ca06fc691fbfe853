"""Tests of what a training step asks of a GPU."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from automl.domain.candidate import Candidate
from automl.domain.events import TrialOpened, TrialProposed
from automl.domain.settings import Settings
from automl.machine.gpus.ledger import GpuLedger
from automl.machine.signals import StopSignal
from automl.morphism.seeds import seed_architectures
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.runs.training_gpu import final_fit_gpu, worker_gpu
from automl.steps import prepare
from automl.steps.open_run import open_search
from automl.tracks.image.facts import ImageFacts
from automl.tracks.image.memory import SMALL_STEP_WORK, step_work
from automl.training.device import device_type
from tests.digits import study_of_digits
from tests.gpus import GIB, machine_with, pretended_gpus
from tests.quiet import Quiet

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in machine_with(tmp_path, pretended_gpus(1)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def opened(folder: Path, limits: dict[str, object]) -> StepContext:
    search = {"time_limit": "60s", "workers": 1, "limits": limits}
    spec = study_of_digits(folder, rows=100, search=search)
    context = StepContext.open(Settings(str(folder / "home")), spec, "one", "test")
    manifest = prepare.prepare(context, Quiet().items)
    with RunLease(context):
        open_search(context, manifest.id)
    return context


def claimed(folder: Path) -> tuple[int | None, int, str]:
    (gpu,) = pretended_gpus(1)
    (holder,) = GpuLedger(folder / "locks", gpu).holders()
    return holder.claim.need_bytes, holder.claim.most, holder.claim.purpose


def test_trials_that_nothing_bounds_have_a_gpu_for_themselves(tmp_path: Path) -> None:
    context = opened(tmp_path, {})

    with worker_gpu(context, 3, StopSignal(), None):
        assert claimed(tmp_path) == (None, 1, "worker 3 of run one of study digits")


def test_small_trials_that_are_bounded_share_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = opened(tmp_path, {"device_memory": "512MiB"})
    rows = 100 * 8 * 8 * 3  # all of the dataset

    with worker_gpu(context, 0, StopSignal(), None) as first:
        need_bytes, most, _ = claimed(tmp_path)
        assert (need_bytes, most) == (2 * GIB + rows, 4)
        with final_fit_gpu(context, StopSignal()) as second:
            assert first == second
    monkeypatch.setenv("AUTOML_GPU_SHARES", "1")
    with worker_gpu(context, 0, StopSignal(), None):
        assert claimed(tmp_path)[:2] == (None, 1)


def test_large_trials_share_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = opened(tmp_path, {"device_memory": "512MiB"})
    monkeypatch.setattr("automl.tracks.image.memory.SMALL_STEP_WORK", 1000)

    with worker_gpu(context, 0, StopSignal(), None):
        assert claimed(tmp_path)[:2] == (None, 1)


def test_proposals_count_for_the_work_of_a_step() -> None:
    facts = ImageFacts(image_size=8, classes=10, batch_size=64)
    large = Candidate(genotype=seed_architectures(64, 10)[2].genotype(), hyperparameters={})

    assert 0 < step_work([], facts) < step_work([large], facts) < SMALL_STEP_WORK


def test_the_newest_proposals_decide_whether_a_gpu_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = opened(tmp_path, {"device_memory": "512MiB"})
    seeds_only = step_work([], ImageFacts(image_size=8, classes=10, batch_size=64))
    monkeypatch.setattr("automl.tracks.image.memory.SMALL_STEP_WORK", 2 * seeds_only)
    large = Candidate(genotype=seed_architectures(64, 10)[2].genotype(), hyperparameters={})
    with worker_gpu(context, 0, StopSignal(), None):
        assert claimed(tmp_path)[1] == 4

    context.record.commit(
        lambda study: (
            TrialOpened(at=NOW, n=0, run="one", worker="w"),
            TrialProposed(at=NOW, n=0, candidate=large, based_on=1, strategy="random"),
        )
    )

    with worker_gpu(context, 0, StopSignal(), None):
        assert claimed(tmp_path)[:2] == (None, 1)


def test_a_final_fit_that_is_done_waits_for_no_gpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = opened(tmp_path, {})
    caplog.set_level(logging.INFO)
    with worker_gpu(context, 0, StopSignal(), None), final_fit_gpu(context, StopSignal()) as gpu:
        assert gpu is None  # nothing is chosen in this run: the step itself says so
    assert "none is needed any more" in caplog.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device has a name of its own")
def test_a_machine_without_cuda_trains_on_the_cpu() -> None:
    assert device_type() == "cpu"
