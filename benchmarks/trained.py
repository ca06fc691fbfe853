"""Real searches: the platform's own steps on small datasets, with trials of equal length."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from automl.data.splits import Part
from automl.domain.events import Event
from automl.domain.ranking import ranked_winners
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.study import Run, Study
from automl.domain.training import StopReason
from automl.domain.trial import Trial
from automl.morphism.architecture import Architecture
from automl.runs.context import StepContext
from automl.runs.opening import open_run
from automl.runs.proposals import SpaceOf, search_space
from automl.runs.run_lease import RunLease
from automl.runs.training import Length, TrialTrainer, TrialTraining
from automl.runs.trial_files import load_model
from automl.runs.trials import TrialResult, TrialSource
from automl.runs.worker import Trainer, work_on
from automl.steps.prepare import prepare
from automl.steps.study_file import study_spec
from automl.steps.supervision import give_back
from automl.storage.leases import KeepAlive
from automl.storage.open import open_home
from automl.tracks.image.fitter import ImageFitter
from automl.tracks.image.snapshot import ImageSnapshot
from automl.tracks.track import track_of
from automl.training.inference import predict_probabilities
from automl.training.results import weights_from_bytes
from benchmarks.datasets import data_section

RUN = "run-1"
TRIAL_LIMIT_S = 15.0  # processor time, of which a trial has one thread
_BATCH_SIZE = 64
_THREADS = 1
_LIMIT = "700h"


@dataclass(frozen=True, slots=True)
class Plan:
    """One search.

    Attributes:
        dataset: one of `benchmarks.datasets.NAMES`.
        strategy: as in a study file.
        inherits: whether trials start from their parents' weights.
        seed: of splits and proposals.
        trials: how many.
        epochs: of each trial.
    """

    dataset: str
    strategy: str
    inherits: bool
    seed: int
    trials: int
    epochs: int

    @property
    def label(self) -> str:
        """The strategy, and whether weights are inherited."""
        return self.strategy if self.inherits else f"{self.strategy}-from-scratch"


@dataclass(frozen=True, slots=True)
class FromScratch:
    """A trainer that gives no trial its parent's weights.

    Attributes:
        inner: trains.
    """

    inner: Trainer

    def train(self, trial: Trial, training: TrialTraining, alive: KeepAlive) -> TrialResult:
        """Return what the training came to."""
        assert trial.candidate is not None
        orphan = trial.candidate.model_copy(update={"parent": None, "moves": ()})
        return self.inner.train(replace(trial, candidate=orphan), training, alive)


def prepare_home(plan: Plan, folder: Path) -> Path:
    """Return a home under `folder` that has the plan's snapshot; searches get copies of it."""
    home = folder / "prepared" / f"{plan.dataset}-{plan.seed}"
    context = _context(home, _spec(plan, data_section(plan.dataset, folder / "sources")))
    prepare(context, lambda done, total, what: None)
    return home


def run_search(plan: Plan, folder: Path) -> tuple[Study, float | None]:
    """Run one search, or go on with it where it was interrupted.

    Args:
        plan: the search; `prepare_home` has run for it.
        folder: where its home is.

    Returns:
        The study, and the accuracy of its best trial on the test rows; None if no trial has a
        score.
    """
    context, run, trainer = open_study(plan, folder)
    with RunLease(context):
        give_back(context, 0)
        search(context, trainer if plan.inherits else FromScratch(trainer))
        study = context.record.refresh()
        best = next(iter(ranked_winners(study.comparable(run))), None)
        return study, None if best is None else _test_accuracy(context, trainer, best)


def open_study(plan: Plan, folder: Path) -> tuple[StepContext, Run, TrialTrainer]:
    """Open the run of a search, or the one that was interrupted, and return who trains its trials.

    Args:
        plan: the search; `prepare_home` has run for it.
        folder: where its home is.
    """
    home = _home(plan, folder)
    if not home.exists():
        partial = home.with_name(f"{home.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder / "prepared" / f"{plan.dataset}-{plan.seed}", partial)
        partial.rename(home)
    context = _context(home, _spec(plan, data_section(plan.dataset, folder / "sources")))
    manifest = prepare(context, lambda done, total, what: None)
    with RunLease(context):
        track = track_of(context.spec.task)
        dataset = track.open(context.store, context.spec.name, manifest.id)
        open_run(context, manifest.id, dataset.size_facts())
    run = context.opened_run()
    trainer, _ = with_budget(
        replace(TrialTrainer.load(context, run), length=Length.FULL),
        epochs=plan.epochs,
        batch_size=_BATCH_SIZE,
        patience=0,
    )
    return context, run, trainer


def with_budget(trainer: TrialTrainer, **changes: int) -> tuple[TrialTrainer, ImageFitter]:
    """Return a trainer whose trainings have another budget, and what fits for it.

    Args:
        trainer: the trainer.
        changes: values of fields of the budget.
    """
    assert isinstance(trainer.fitter, ImageFitter)
    fitter = replace(trainer.fitter, budget=replace(trainer.fitter.budget, **changes))
    return replace(trainer, fitter=fitter), fitter


def read_log(plan: Plan, folder: Path) -> Sequence[tuple[int, Event]]:
    """Return the versions and events of a search that has run."""
    spec = _spec(plan, data_section(plan.dataset, folder / "sources"))
    return open_home(Settings(str(_home(plan, folder)))).study_log(spec.name).read()


def _home(plan: Plan, folder: Path) -> Path:
    name = f"{plan.dataset}-{plan.seed}-{plan.label}-{plan.trials}-{plan.epochs}"
    return folder / "searches" / name


def search(
    context: StepContext,
    trainer: Trainer,
    space_of: SpaceOf = search_space,
    trial_limit_s: float | None = None,
) -> None:
    """Train trials until the search is over.

    Args:
        context: of the run, whose lease the caller holds.
        trainer: trains.
        space_of: gives the run's search space.
        trial_limit_s: processor time of a trial; None for `TRIAL_LIMIT_S`.
    """
    worker = f"{RUN}/0"
    source = TrialSource(context, worker, space_of)
    while (claim := source.take()) is not None:
        limit_s = time.process_time() + (trial_limit_s or TRIAL_LIMIT_S)

        def stop_reason(limit_s: float = limit_s) -> StopReason | None:
            return StopReason.DEADLINE if time.process_time() > limit_s else None

        work_on(context, trainer, claim, TrialTraining(worker, stop_reason))


def _test_accuracy(context: StepContext, trainer: TrialTrainer, best: Trial) -> float:
    assert best.candidate is not None
    assert isinstance(trainer.fitter, ImageFitter)
    snapshot = ImageSnapshot.open(context.store, context.spec.name, best.snapshot)
    images, labels = snapshot.tensors(Part.REPORT, Part.GATE)
    probabilities = predict_probabilities(
        Architecture.from_genotype(best.candidate.genotype),
        weights_from_bytes(load_model(context, best), f"The model of trial {best.number}"),
        trainer.fitter.normalization,
        images,
        _THREADS,
    )
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def _context(home: Path, spec: StudySpec) -> StepContext:
    return StepContext.open(Settings(str(home)), spec, RUN, "benchmark")


def _spec(plan: Plan, data: dict[str, Any]) -> StudySpec:
    return study_spec(
        {
            "name": plan.dataset.replace("_", "-"),
            "task": "image_classification",
            "data": data,
            "search": {
                "strategy": plan.strategy,
                "seed": plan.seed,
                "max_trials": plan.trials,
                "time_limit": _LIMIT,
                "workers": 1,
            },
        }
    )
