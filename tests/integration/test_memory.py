"""Memory that runs out for real, and winners that a final fit has no memory for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl.domain.candidate import Candidate
from automl.domain.events import Event, TrialClaimed, TrialFinished, TrialOpened, TrialProposed
from automl.domain.invariants import violations
from automl.domain.settings import Settings
from automl.domain.study import Run, Study
from automl.domain.trial import Device, Measurement, Outcome, Trial
from automl.errors import NotFoundError
from automl.machine.process import run_step
from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.memory import memory_need
from automl.morphism.nodes import conv
from automl.runs.proposals import search_space
from automl.runs.replay import replay_document
from automl.steps.dispatch import run_named_step
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from automl.tracks.image.facts import ImageFacts
from automl.tracks.image.memory import training_plan
from automl.tracks.image.space import GENES
from automl.training.initialization import initial_weights
from automl.training.results import weights_to_bytes
from tests.homes import use_home

SIZE = 63  # odd, so that trainings do not begin with smaller images
SPARE_MB = 460
_RESTARTS = 5
# the allocator reserves no address space for threads, and keeps none of freed tensors
THRIFTY = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}
CPU = Device(type="cpu", memory_bytes=10**12)
HYPERPARAMETERS = {name: gene.default for name, gene in GENES.items()}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


class Night:
    """A study of noise, step by step.

    Args:
        home: where it is kept.
        size: of the images in pixels.
    """

    def __init__(self, home: Path, size: int) -> None:
        self.home, self.rows, self.size = home, home.parent / "rows.npz", size
        images = np.random.default_rng(0).integers(0, 256, (120, size, size), dtype=np.uint8)
        np.savez(self.rows, allow_pickle=False, x=images, y=np.arange(120) % 2)
        self.run = ""

    def payload(self, max_trials: int) -> dict[str, Any]:
        spec = {
            "name": "noise", "task": "image_classification",
            "data": {
                "source": str(self.rows), "validation_fraction": 0.05, "image_size": self.size,
            },
            "search": {"time_limit": "5m", "workers": 1, "max_trials": max_trials},
        }  # fmt: skip
        return {"spec": spec, "run": self.run, "origin": "test"}

    def open(self, run: str, max_trials: int) -> Run:
        if self.run:
            run_named_step("fail_run", self.payload(max_trials) | {"cause": "ended"})
        self.run = run
        prepared = run_named_step("prepare", self.payload(max_trials))
        assert isinstance(prepared, dict)
        payload = self.payload(max_trials) | {"snapshot": prepared["snapshot"]}
        assert run_named_step("open_run", payload) == [0]
        opened = self.study.run(run)
        assert opened is not None
        return opened

    def step(self, name: str) -> Any:
        return run_named_step(name, self.payload(9))

    def work(self, max_trials: int, spare_mb: int = SPARE_MB) -> list[str]:
        """Let worker processes with little address space search, and return what they say.

        Native code that is refused memory may crash; the next process then goes on, as always.
        """
        lines: list[str] = []
        for _ in range(_RESTARTS):
            payload = self.payload(max_trials) | {"worker": 0}
            done = run_step(
                "run_worker",
                payload,
                env={**os.environ, "SPARE_MB": str(spare_mb), **THRIFTY},
                timeout_s=280.0,
                on_line=lines.append,
                stop=lambda: False,
                module="tests.limited_child",
            )
            if not done.has_died:
                assert done.result is not None, lines
                assert done.result["state"] == "search_ended", lines
                return lines
            run_named_step("give_back", payload)
        raise AssertionError(lines)

    @property
    def log(self) -> list[tuple[int, Event]]:
        return list(open_home(Settings(str(self.home))).study_log("noise").read())

    @property
    def study(self) -> Study:
        return StudyRecord(open_home(Settings(str(self.home))).study_log("noise")).refresh()

    def append(self, events: Sequence[Event]) -> None:
        study_log = open_home(Settings(str(self.home))).study_log("noise")
        study_log.append(events, expected_version=self.study.version)

    def propose(self, candidate: Candidate) -> int:
        """Record a candidate of a worker with more memory, which then died."""
        n, at = len(self.study.trials), datetime.now(UTC)
        big = Device(type="cpu", memory_bytes=10**12)
        self.append([TrialOpened(at=at, n=n, run=self.run, worker="gone", device=big)])
        based_on = self.study.version
        self.append(
            [TrialProposed(at=at, n=n, candidate=candidate, based_on=based_on, strategy="test")]
        )
        return n

    def complete(self, candidate: Candidate, loss: float, peak_bytes: int) -> int:
        """Record a completed trial with weights."""
        n, at = self.propose(candidate), datetime.now(UTC)
        key = f"studies/noise/trials/{n}/1/weights.safetensors"
        weights = initial_weights(Architecture.parse(candidate.genotype), (n,))
        open_home(Settings(str(self.home))).store.put(key, weights_to_bytes(weights))
        measured = Measurement(
            score=-loss, loss=loss, weights=key, device="cpu", peak_bytes=peak_bytes,
            predicted_bytes=peak_bytes, best_epoch=0, epochs=1,
        )  # fmt: skip
        self.append(
            [
                TrialClaimed(at=at, n=n, attempt=1, run=self.run, worker="gone"),
                TrialFinished(
                    at=at, n=n, attempt=1, run=self.run, outcome=Outcome.COMPLETED,
                    measurement=measured,
                ),
            ]
        )  # fmt: skip
        return n


def chain(blocks: int) -> Candidate:
    """Return a network of little work that keeps much: 1 x 1 convolutions at full resolution."""
    nodes = [Node(Op.INPUT)]
    for _ in range(blocks):
        last = len(nodes) - 1
        nodes += [conv(last, 32, 1), Node(Op.BATCH_NORM, (last + 1,)), Node(Op.RELU, (last + 2,))]
    last = len(nodes) - 1
    nodes += [Node(Op.GLOBAL_POOL, (last,)), Node(Op.DENSE, (last + 1,), {"units": 2})]
    genotype = Architecture(SIZE, 3, tuple(nodes)).canonical()[0].genotype()
    return Candidate(genotype=genotype, hyperparameters=HYPERPARAMETERS)


def need_of(run: Run, trial: Trial) -> int:
    assert trial.candidate is not None
    assert run.space is not None
    architecture = Architecture.parse(trial.candidate.genotype)
    return memory_need(
        architecture, training_plan(ImageFacts.read(run.space, run.limits), CPU)
    ).total


@pytest.mark.parametrize("runs", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_memory_that_runs_out_halves_the_batch_then_ends_the_trial(home: Path, runs: int) -> None:
    night = Night(home, SIZE)
    run = night.open("one", 4)
    middle, large = night.propose(chain(9)), night.propose(chain(90))

    said = night.work(4)

    trials = night.study.trials
    failed, halved = trials[large], trials[middle]
    assert failed.outcome is Outcome.OUT_OF_MEMORY, failed.cause
    assert "lacks memory for 63 px" in failed.cause
    assert failed.measurement.predicted_bytes == need_of(run, failed)
    assert sum("memory ran out with" in line for line in said) >= 4  # 64; and 64, 32, 16
    assert halved.outcome is Outcome.COMPLETED, halved.cause
    assert halved.measurement.network is not None
    assert halved.measurement.network.batch_size == 64
    assert halved.measurement.is_accumulated
    assert len(trials) == 4  # the study has gone on
    assert trials[2].outcome is Outcome.COMPLETED, trials[2].cause
    for trial in trials[2:]:
        assert trial.device is not None
        assert trial.device.memory_bytes is not None
        assert need_of(run, trial) <= trial.device.memory_bytes < SPARE_MB * 2**20

    assert violations(night.log) == []
    if runs > 1:
        assert_remembered(night, run, failed)


def assert_remembered(night: Night, run: Run, failed: Trial) -> None:
    """Assert that the next run of the study, in another process, proposes nothing as large."""
    night.open("two", 2)
    night.work(2, 1500)

    later = night.study.trials[4:]
    assert len(later) == 2, later[0].cause
    for trial in later:
        assert trial.candidate is not None
        assert failed.candidate is not None
        assert trial.candidate.genotype != failed.candidate.genotype
        assert need_of(run, trial) < need_of(run, failed)
    assert violations(night.log) == []


def seeds(run: Run) -> Sequence[Candidate]:
    return search_space(run).seeds()


def test_a_winner_without_memory_for_its_final_fit_is_passed_over(home: Path) -> None:
    night = Night(home, 8)
    run = night.open("one", 9)
    best, second, third = (
        night.complete(seed, loss, peak_bytes)
        for seed, loss, peak_bytes in zip(
            seeds(run), (-0.9, -0.8, -0.7), (2 * 10**12, 10**9, 10**9), strict=True
        )
    )

    assert night.step("choose")["trial"] == second

    chosen = night.log[-1][1].model_dump()
    assert (chosen["trial"], chosen["runner_up"]) == (second, third)
    reason = "its training took 2,000,000,000,000 bytes on cpu, which has 1,000,000,000,000"
    assert chosen["passed_over"] == ({"trial": best, "reason": reason},)


def test_where_no_trial_has_memory_the_best_wins(home: Path) -> None:
    night = Night(home, 8)
    run = night.open("one", 9)
    for seed, loss in zip(seeds(run), (-0.7, -0.9, -0.8), strict=True):
        night.complete(seed, loss, 2 * 10**12)

    assert night.step("choose")["trial"] == 1
    chosen = night.log[-1][1].model_dump()
    assert (chosen["runner_up"], chosen["passed_over"]) == (2, ())


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
def test_the_runner_up_is_fitted_where_the_winners_weights_are_lost(
    home: Path, damage: str
) -> None:
    night = Night(home, 8)
    run = night.open("one", 9)
    for seed, loss in zip(seeds(run), (-0.7, -0.9, -0.8), strict=True):
        night.complete(seed, loss, 10**9)
    assert night.step("choose")["trial"] == 1
    store, key = open_home(Settings(str(home))).store, night.study.trials[1].measurement.weights
    assert key is not None
    if damage == "deleted":
        store.delete(key)
    else:
        store.put(key, store.get(key).data[:-1])

    fitted = night.step("final_fit")

    assert fitted["trial"] == 2
    assert night.step("export") == {"version": 1}


def test_without_a_runner_up_lost_weights_are_an_error(home: Path) -> None:
    night = Night(home, 8)
    run = night.open("one", 9)
    night.complete(seeds(run)[0], -0.9, 10**9)
    night.step("choose")
    key = night.study.trials[0].measurement.weights
    assert key is not None
    open_home(Settings(str(home))).store.delete(key)

    with pytest.raises(NotFoundError, match="weights"):
        night.step("final_fit")


def test_a_search_records_devices_predictions_and_peaks(home: Path) -> None:
    night = Night(home, 8)
    night.open("one", 3)

    run_named_step("run_worker", night.payload(3) | {"worker": 0})

    for trial in night.study.trials:
        assert trial.device is not None
        found = trial.measurement
        assert found.device == trial.device.type
        assert found.predicted_bytes is not None
        assert found.peak_bytes is not None
        assert found.network is not None
        assert found.network.micro_batch == found.network.batch_size == 64
    assert replay_document(open_home(Settings(str(home))), "noise")["ok"]
