"""The step `final_fit`: the weights that are published."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from automl.domain.events import FinalFitFinished
from automl.domain.study import Run, Study
from automl.domain.trial import Trial
from automl.errors import (
    DamagedDataError,
    NotFoundError,
    OutOfMemoryError,
    SearchError,
    StorageError,
)
from automl.morphism.architecture import Architecture
from automl.steps.context import StepContext
from automl.steps.cores import threads_of_final_fit
from automl.steps.pretrained import fresh_weights, is_pretrained, lineage
from automl.steps.signals import StopSignal
from automl.steps.training import (
    RUNG,
    TrialTrainer,
    Weights,
    load_weights,
    useful_threads,
)
from automl.training.checkpoint import Checkpoint, EpochResult
from automl.training.device import choose_device
from automl.training.examples import Examples
from automl.training.inference import predict_probabilities
from automl.training.problem import FitHooks, FitProblem, InitialWeights, StopReason
from automl.training.results import weights_to_bytes
from automl.training.trainer import fit

log = logging.getLogger(__name__)

_CONTINUED_SHARE = 3  # continuing takes a third of the epochs that a fresh fit takes


@dataclass(frozen=True, slots=True)
class FinalFit:
    """What the final fit came to."""

    trial: int
    source: str
    epochs: int
    note: str

    def to_json(self) -> dict[str, object]:
        """Return the step's result."""
        return {
            "trial": self.trial, "source": self.source, "epochs": self.epochs, "note": self.note,
        }  # fmt: skip


def final_fit(context: StepContext, stop: StopSignal) -> FinalFit:
    """Fit the winner on training and selection rows and store the weights to publish.

    The incumbent's weights are published instead where the fit fails, is out of time, or is worse
    on the calibration rows, which neither has seen, by more than the paired standard error.

    Raises:
        SearchError: no winner has been chosen.
        StorageError: the process was asked to stop.
    """
    run = context.opened_run()
    if run.final_fit is not None:
        done = run.final_fit
        return FinalFit(done.trial, done.source, done.epochs, done.note)
    if run.winner is None:
        raise SearchError(f"Run {run.name} has no winner yet.", "run the step choose first")
    trial = context.record.study.trials[run.winner]
    trainer = _with_all_threads(TrialTrainer.load(context, run))
    incumbent = load_weights(context, trial)
    epochs = _epochs(context.record.study, trial, continued=not context.spec.final_fit.retrain)
    weights, note = _fit(context, run, trainer, epochs, stop)
    if weights is not None:
        note = _worse_than(trainer, trial, weights, incumbent)
    is_refit = weights is not None and not note
    if note:
        log.warning("the incumbent's weights are published: %s", note)
    key = context.key("runs", context.run, "weights.safetensors")
    chosen = weights if weights is not None and is_refit else incumbent
    context.store.put(key, weights_to_bytes(chosen))
    event = FinalFitFinished(
        at=context.clock.now(),
        run=context.run,
        trial=trial.number,
        weights=key,
        source="retrained" if is_refit else "incumbent",
        epochs=epochs if is_refit else trial.measurement.epochs,
        note=note,
    )

    def decide(study: Study) -> list[FinalFitFinished]:
        return [] if context.run_in(study).final_fit is not None else [event]

    context.record.commit(decide)
    return FinalFit(trial.number, event.source, event.epochs, note)


def _with_all_threads(trainer: TrialTrainer) -> TrialTrainer:
    """Return `trainer` with the CPU threads of a final fit, which runs alone."""
    return replace(trainer, threads=threads_of_final_fit(trainer.context.spec.search))


def _epochs(study: Study, trial: Trial, *, continued: bool) -> int:
    """Return for how many epochs to fit: those that led to the best weights, ancestors included."""
    total, place = 0, trial
    while True:
        total += (place.measurement.best_epoch or 0) + 1
        if place.candidate is None or place.candidate.parent is None:
            break
        place = study.trials[place.candidate.parent]
    total = min(total, RUNG.epochs)
    return max(1, total // _CONTINUED_SHARE) if continued else total


def _fit(
    context: StepContext, run: Run, trainer: TrialTrainer, epochs: int, stop: StopSignal
) -> tuple[Weights | None, str]:
    """Return the fitted weights, or None and why there are none.

    A step that is run again continues from its checkpoint, within the same time limit.
    """
    assert run.winner is not None
    assert run.chosen_at is not None
    trial = context.record.study.trials[run.winner]
    assert trial.candidate is not None
    limit = context.spec.final_fit.time_limit
    end = run.chosen_at + limit
    checkpoint_key = context.key("runs", context.run, "final-fit.safetensors")

    def should_stop() -> StopReason | None:
        if stop.is_set():
            return StopReason.SIGNAL
        return StopReason.DEADLINE if context.clock.now() >= end else None

    def on_epoch(epoch: EpochResult) -> StopReason | None:
        log.info("final fit, epoch %d of %d: loss %.4f", epoch.epoch + 1, epochs, epoch.train_loss)
        return None

    def save(checkpoint: Checkpoint) -> None:
        context.store.put(checkpoint_key, checkpoint.to_bytes())

    start: Checkpoint | InitialWeights | None = _stored(context, checkpoint_key)
    if start is None:
        start = (
            fresh_weights(context, trial, trainer.normalization)
            if context.spec.final_fit.retrain
            else InitialWeights(load_weights(context, trial))
        )
    rows = Examples(
        np.concatenate([trainer.train_rows.images, trainer.selection.images]),
        np.concatenate([trainer.train_rows.labels, trainer.selection.labels]),
    )
    architecture = Architecture.from_genotype(trial.candidate.genotype)
    problem = FitProblem(
        architecture=architecture,
        hyperparameters=trial.candidate.hyperparameters,
        normalization=trainer.normalization,
        symmetries=trainer.symmetries,
        train=rows,
        selection=None,
        rung=replace(RUNG, epochs=epochs, patience=0),
        seed=(context.spec.search.seed, trial.number, 1),
        device=choose_device(),
        threads=useful_threads(architecture, trainer.threads),
        precision=trainer.precision,
        is_warm=not context.spec.final_fit.retrain
        or is_pretrained(context.record.study, lineage(context.record.study, trial)[-1]),
    )
    try:
        result = fit(
            problem, start, FitHooks(should_stop=should_stop, on_epoch=on_epoch, save=save)
        )
    except OutOfMemoryError as error:
        return None, f"the fit failed: {error}"
    if result.stopped is StopReason.SIGNAL:
        raise StorageError("The final fit was asked to stop.", "run the step again")
    if result.stopped is StopReason.DIVERGED:
        return None, f"the fit failed: {result.cause}"
    if result.stopped is StopReason.DEADLINE or result.best_weights is None:
        return None, f"final_fit.time_limit of {limit.total_seconds():g} s was reached"
    return result.best_weights, ""


def _stored(context: StepContext, key: str) -> Checkpoint | None:
    """Return the checkpoint under `key`; None if there is none that can be read."""
    try:
        checkpoint = Checkpoint.from_bytes(context.store.get(key).data)
    except NotFoundError:
        return None
    except DamagedDataError as error:
        log.warning("%s is damaged, the final fit starts anew: %s", key, error)
        return None
    log.info("the final fit resumes at epoch %d", checkpoint.epoch)
    return checkpoint


def _worse_than(trainer: TrialTrainer, trial: Trial, weights: Weights, incumbent: Weights) -> str:
    """Return why the fit is worse than the incumbent on the calibration rows, or ""."""
    rows = trainer.calibration
    if len(rows.labels) < 2:
        return ""
    assert trial.candidate is not None
    architecture = Architecture.from_genotype(trial.candidate.genotype)

    def losses(candidate: Weights) -> np.ndarray:
        probabilities = predict_probabilities(
            architecture, candidate, trainer.normalization, rows.images, trainer.threads
        )
        chosen = probabilities[np.arange(len(rows.labels)), rows.labels]
        return np.asarray(-np.log(np.maximum(chosen, 1e-12)))

    difference = losses(weights) - losses(incumbent)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / len(difference) ** 0.5
    if mean <= error:
        return ""
    return f"its loss on the calibration rows is worse by {mean:.4f} ± {error:.4f}"
