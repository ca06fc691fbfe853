"""The step `final_fit`: the weights that are published."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from automl.domain.documents import JsonValue
from automl.domain.events import FinalFitFinished, FitSource, FittedMember
from automl.domain.facts import OriginKind
from automl.domain.study import Run, Study
from automl.domain.training import StopReason
from automl.domain.trial import Trial
from automl.errors import (
    DamagedDataError,
    NotFoundError,
    OutOfMemoryError,
    SearchError,
    StorageError,
)
from automl.machine.cores import threads_of_final_fit, threads_of_trial
from automl.machine.signals import StopSignal
from automl.morphism.architecture import Architecture
from automl.runs.context import StepContext
from automl.runs.continuation import published_members
from automl.runs.trial_files import Weights, load_weights
from automl.steps.call import StepCall
from automl.tracks.image.members import weights_of
from automl.tracks.image.pretrained import fresh_weights, frozen_in
from automl.tracks.image.rows import joined
from automl.tracks.image.trainer import MOST_EPOCHS, RUNG, TrialTrainer, useful_threads
from automl.training.checkpoint import Checkpoint, EpochResult
from automl.training.device import choose_device
from automl.training.examples import Examples
from automl.training.inference import predict_probabilities
from automl.training.module import Normalization
from automl.training.problem import FitHooks, FitProblem, InitialWeights
from automl.training.results import weights_to_bytes
from automl.training.shards import most_copies
from automl.training.trainer import fit

log = logging.getLogger(__name__)

_ENOUGH_EPOCHS = 20  # for fresh weights to overtake those that were trained in several parts
_COPIES_GAIN = 1.4  # in speed, by copies of the network that trials have no threads for
_CONTINUED_SHARE = 3  # continuing takes a third of the epochs that a fresh fit takes
_MARGIN_S = 3.0  # from the end that a fit is sized to until it is stopped, so that it is judged
_LEAST_BUDGET_S = 1.0  # what a fit without any time left is sized to; it is stopped at once


@dataclass(frozen=True, slots=True)
class FinalFit:
    """What the final fit came to."""

    trial: int
    source: str
    epochs: int
    note: str

    def to_json(self) -> dict[str, JsonValue]:
        """Return the step's result."""
        return {
            "trial": self.trial, "source": self.source, "epochs": self.epochs, "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is fitted.

    Attributes:
        trial: whose architecture and training genes it has.
        incumbent: the weights that are published unless the fit is as good.
        incumbent_epochs: for how many epochs they were trained.
        normalization: what the incumbent was trained with, and the fit is.
        source: how the fitted weights are made; continued ones start from the incumbent.
        epochs: of the fit.
        seed: of the fit.
        note: why it is not what the study asks for, or "".
    """

    trial: Trial
    incumbent: Weights
    incumbent_epochs: int
    normalization: Normalization
    source: FitSource
    epochs: int
    seed: tuple[int, ...]
    note: str = ""

    @property
    def architecture(self) -> Architecture:
        """The trial's architecture."""
        assert self.trial.candidate is not None
        return Architecture.from_genotype(self.trial.candidate.genotype)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Weights to publish.

    Attributes:
        weights: the weights; None if a fit came to none.
        source: how they were made.
        epochs: how many led to them.
        note: why they are not what was planned, or "".
    """

    weights: Weights | None
    source: FitSource
    epochs: int
    note: str = ""


def final_fit(context: StepContext, stop: StopSignal) -> FinalFit:
    """Fit the winner on training and selection rows and store the weights to publish.

    Where the winner's own weights are lost, the runner-up takes its place: without them there would
    be nothing to compare the fit with and to fall back to.

    The incumbent's weights are published instead where the fit fails, comes to nothing in its time,
    or is worse on the calibration rows, which neither has seen, by more than the paired standard
    error. The incumbent are the winner's weights, or those of the version that the run continues.

    Raises:
        SearchError: no winner has been chosen, or the version that is continued is gone.
        StorageError: the process was asked to stop.
    """
    run = context.opened_run()
    if run.final_fit is not None:
        done = run.final_fit
        return FinalFit(done.members[0].trial, done.source, done.epochs, done.note)
    if run.winner is None:
        raise SearchError(f"Run {run.name} has no winner yet.", "run the step choose first")
    trainer = _with_all_threads(TrialTrainer.load(context, run))
    plan = _plan(context, run, trainer)
    chosen = _better(trainer, plan, _fit(context, run, trainer, plan, stop))
    assert chosen.weights is not None
    if chosen.source is FitSource.INCUMBENT:
        log.warning("the incumbent's weights are published: %s", chosen.note)
    key = context.keys.run(context.run).weights
    context.store.put(key, weights_to_bytes(chosen.weights))
    member = FittedMember(
        trial=plan.trial.number,
        model=key,
        details={"mean": [*plan.normalization.mean], "std": [*plan.normalization.std]},
    )
    event = FinalFitFinished(
        at=context.clock.now(),
        run=context.run,
        members=(member,),
        source=chosen.source,
        epochs=chosen.epochs,
        note=chosen.note,
    )

    def decide(study: Study) -> list[FinalFitFinished]:
        return [] if context.run_in(study).final_fit is not None else [event]

    context.record.commit(decide)
    return FinalFit(member.trial, event.source, event.epochs, event.note)


def _incumbent(context: StepContext, run: Run, winner: int) -> tuple[Trial, Weights]:
    """Return the winner and its weights; those of the runner-up if they cannot be read."""
    trials = context.record.study.trials
    try:
        return trials[winner], load_weights(context, trials[winner])
    except (NotFoundError, DamagedDataError) as error:
        if run.runner_up is None:
            raise
        log.warning(
            "the weights of trial %d are lost, trial %d takes its place: %s",
            winner, run.runner_up, error,
        )  # fmt: skip
    return trials[run.runner_up], load_weights(context, trials[run.runner_up])


def _with_all_threads(trainer: TrialTrainer) -> TrialTrainer:
    """Return `trainer` with the CPU threads of a final fit, which runs alone."""
    return replace(trainer, threads=threads_of_final_fit(trainer.context.spec.search))


def _plan(context: StepContext, run: Run, trainer: TrialTrainer) -> _Plan:
    assert run.winner is not None
    study = context.record.study
    trial, seed = study.trials[run.winner], context.spec.search.seed
    incumbent: Weights = {}
    if run.continues is None:
        trial, incumbent = _incumbent(context, run, run.winner)
    epochs = fresh_epochs(study, trial)
    continued_epochs = max(1, epochs // _CONTINUED_SHARE)
    if run.continues is None:
        is_fresh, note = context.spec.final_fit.retrain, ""
        limit_s = context.spec.final_fit.time_limit.total_seconds()
        time_for = _epochs_within(limit_s, trainer, trial)
        needed = least_fresh_epochs(study, trial)
        if is_fresh and time_for < needed:
            is_fresh, continued_epochs = False, max(epochs, needed)
            note = (
                f"the winner's weights were continued: final_fit.time_limit of {limit_s:g} s is "
                f"enough for about {time_for:.1f} of the {needed} epochs that fresh weights need"
            )
        return _Plan(
            trial=trial,
            incumbent=incumbent,
            incumbent_epochs=trial.measurement.epochs,
            normalization=trainer.normalization,
            source=FitSource.RETRAINED if is_fresh else FitSource.CONTINUED,
            epochs=epochs if is_fresh else continued_epochs,
            seed=(seed, trial.number, 1),
            note=note,
        )
    (member,) = published_members(context, run.continues)
    origin = study.fitted(run.continues)
    assert origin is not None
    assert origin.final_fit is not None
    return _Plan(
        trial=trial,
        incumbent=weights_of(member),
        incumbent_epochs=origin.final_fit.epochs,
        # the weights know no other; that of the new snapshot would shift what every layer sees
        normalization=Normalization(tuple(member.details["mean"]), tuple(member.details["std"])),
        source=FitSource.CONTINUED,
        epochs=continued_epochs,
        seed=(seed, trial.number, 1, run.continues),  # another order than in the fit before
    )


def _epochs_within(limit_s: float, trainer: TrialTrainer, trial: Trial) -> float:
    """Return about how many epochs of the fit take so long.

    As in the search, but with more rows, and perhaps by more copies of the network. Infinitely many
    if the trial was not timed.
    """
    measured = trial.measurement
    if not measured.seconds or not measured.epochs:
        return math.inf
    more = 1 + len(trainer.selection) / len(trainer.train_rows)
    copies = [
        most_copies(choose_device(), threads, RUNG.batch_size)
        for threads in (trainer.threads, threads_of_trial(trainer.context.spec.search))
    ]
    gain = _COPIES_GAIN if copies[0] > copies[1] else 1.0
    return limit_s / (measured.seconds / measured.epochs * more) * gain


def fresh_epochs(study: Study, trial: Trial) -> int:
    """Return for how many epochs fresh weights of a trial's architecture are fitted.

    Those that led to its best weights, ancestors included: inherited weights need few epochs, fresh
    ones need what the whole lineage did. At most as many as a few trials take, but never fewer than
    the lineage's first trial needed. Epochs are counted, not steps: the selection rows, which come
    on top, make an epoch longer and are seen as often as the others.
    """
    total, place = 0, trial
    while True:
        first = (place.measurement.best_epoch or 0) + 1
        total += first
        if place.candidate is None or place.candidate.parent is None:
            return max(first, min(total, MOST_EPOCHS))
        place = study.trials[place.candidate.parent]


def least_fresh_epochs(study: Study, trial: Trial) -> int:
    """Return for how many epochs a fit of fresh weights must have time; with less, it continues.

    All that the lineage had are enough, but for pretrained networks: those overfit within a few
    epochs, and yet another cycle from their best ones makes them better than a first one anew does.
    """
    if frozen_in(study, trial) is not None:
        return _ENOUGH_EPOCHS
    return min(fresh_epochs(study, trial), _ENOUGH_EPOCHS)


def _fit(
    context: StepContext, run: Run, trainer: TrialTrainer, plan: _Plan, stop: StopSignal
) -> _Fitted:
    """Return the fitted weights, or none and why.

    A step that is run again continues from its checkpoint, within the same time limit.
    """
    assert run.chosen_at is not None
    assert plan.trial.candidate is not None
    limit = context.spec.final_fit.time_limit
    is_called = run.origin.kind is OriginKind.PYTHON  # maybe hours after the search
    end = (context.clock.now() if is_called else run.chosen_at) + limit
    runner_up = None if plan.trial.number == run.winner else plan.trial.number
    checkpoint_key = context.keys.run(context.run).final_fit(runner_up)

    def should_stop() -> StopReason | None:
        if stop.is_set():
            return StopReason.SIGNAL
        return StopReason.DEADLINE if context.clock.now() >= end else None

    def on_epoch(epoch: EpochResult) -> StopReason | None:
        log.info("final fit, epoch %d: loss %.4f", epoch.epoch + 1, epoch.train_loss)
        return None

    def save(checkpoint: Checkpoint) -> None:
        context.store.put(checkpoint_key, checkpoint.to_bytes())

    start: Checkpoint | InitialWeights | None = _stored(context, checkpoint_key)
    used_s = start.seconds if isinstance(start, Checkpoint) else 0.0  # all attempts share a budget
    left_s = (end - context.clock.now()) / timedelta(seconds=1) - _MARGIN_S
    if start is None:
        start = (
            fresh_weights(context, plan.trial, plan.normalization)
            if plan.source is FitSource.RETRAINED
            else InitialWeights(plan.incumbent)
        )
    frozen = frozen_in(context.record.study, plan.trial)
    problem = FitProblem(
        architecture=plan.architecture,
        hyperparameters=plan.trial.candidate.hyperparameters,
        normalization=plan.normalization,
        symmetries=trainer.symmetries,
        train=_fitted_rows(trainer),
        selection=None,
        rung=replace(
            RUNG, epochs=plan.epochs, patience=0, seconds=used_s + max(left_s, _LEAST_BUDGET_S)
        ),
        seed=plan.seed,
        device=choose_device(),
        threads=useful_threads(plan.architecture, trainer.threads),
        precision=trainer.precision,
        is_warm=plan.source is FitSource.CONTINUED or frozen is not None,
        frozen=frozen,
    )
    try:
        result = fit(
            problem, start, FitHooks(should_stop=should_stop, on_epoch=on_epoch, save=save)
        )
    except OutOfMemoryError as error:
        return _Fitted(None, plan.source, 0, f"the fit failed: {error}")
    if result.stopped is StopReason.SIGNAL:
        raise StorageError("The final fit was asked to stop.", "run the step again")
    if result.stopped is StopReason.DIVERGED:
        return _Fitted(None, plan.source, 0, f"the fit failed: {result.cause}")
    note = plan.note
    if result.epochs < plan.epochs and not note:
        fitting = f"{result.epochs} of {plan.epochs} epochs"
        note = f"{fitting} fit into final_fit.time_limit of {limit.total_seconds():g} s"
    return _Fitted(result.best_weights, plan.source, result.epochs, note)


def _fitted_rows(trainer: TrialTrainer) -> Examples:
    """Return the rows that are trained on: all but the calibration and the test rows."""
    return joined(trainer.train_rows, trainer.selection)


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


def _better(trainer: TrialTrainer, plan: _Plan, fitted: _Fitted) -> _Fitted:
    """Return the fit, or the incumbent with the reason why the fit is not published."""
    reasons = [fitted.note] if fitted.note else []
    if fitted.weights is not None:
        worse = _worse_than(trainer, plan, fitted.weights)
        if not worse:
            return fitted
        reasons.append(worse)
    return _Fitted(plan.incumbent, FitSource.INCUMBENT, plan.incumbent_epochs, "; ".join(reasons))


def _worse_than(trainer: TrialTrainer, plan: _Plan, weights: Weights) -> str:
    """Return why weights are worse than the incumbent, or "".

    The losses of the same calibration rows are compared. Of fewer than two rows the difference has
    no standard error: then finite weights count as good enough.
    """
    if not all(np.isfinite(array).all() for array in weights.values()):
        return "its weights are not finite"
    rows = trainer.calibration
    if len(rows.labels) < 2:
        return ""

    def losses(candidate: Weights) -> np.ndarray:
        probabilities = predict_probabilities(
            plan.architecture, candidate, plan.normalization, rows.images, trainer.threads
        )
        chosen = probabilities[np.arange(len(rows.labels)), rows.labels]
        return np.asarray(-np.log(np.maximum(chosen, 1e-12)))

    difference = losses(weights) - losses(plan.incumbent)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / len(difference) ** 0.5
    if mean <= error:
        return ""
    return f"its loss on the calibration rows is worse by {mean:.4f} ± {error:.4f}"


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the document of what was fitted."""
    return final_fit(context, call.stop).to_json()
