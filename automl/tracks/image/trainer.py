"""Training one claimed trial: inherited weights or a checkpoint in, measurement and weights out."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from automl.data.splits import Part
from automl.domain.specification import SearchSection
from automl.domain.study import Run
from automl.domain.training import StopReason
from automl.domain.trial import Device, Measurement, NetworkMeasurement, Outcome, Trial
from automl.errors import DamagedDataError, NotFoundError, OutOfMemoryError, TrainingError
from automl.machine.cores import threads_of_trial
from automl.morphism.architecture import Architecture
from automl.morphism.memory import memory_need
from automl.morphism.moves import Move, inherit
from automl.runs.budget import trial_seconds
from automl.runs.checkpoints import counting_checkpoints
from automl.runs.context import StepContext
from automl.runs.judging import Judge
from automl.runs.memory import BFLOAT16, training_plan
from automl.runs.trial_files import TrialStorage, load_weights
from automl.runs.trials import TrialResult
from automl.storage.leases import KeepAlive
from automl.tracks.image.pretrained import frozen_in, pretrained_weights
from automl.tracks.image.rows import train_rows
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from automl.training.capacity import training_capacity
from automl.training.checkpoint import Checkpoint, EpochResult
from automl.training.device import choose_device, device_type, is_out_of_memory
from automl.training.examples import Examples
from automl.training.inference import measure_latency_ms, predict_probabilities
from automl.training.module import Normalization
from automl.training.peak_memory import peak_memory
from automl.training.precision import Precision
from automl.training.problem import FitHooks, FitProblem, FitResult, InitialWeights, Rung
from automl.training.results import weights_to_bytes
from automl.training.shards import most_copies
from automl.training.symmetry import Symmetries, find_symmetries
from automl.training.trainer import fit

RUNG = Rung(epochs=30, batch_size=64, patience=8)
MOST_EPOCHS = 4 * RUNG.epochs
_ENOUGH_EXAMPLES = 1_200_000  # seen by a training, with repetition
_SMALL_MACS = 16_000_000  # multiply-adds of one image

log = logging.getLogger(__name__)


class Length(StrEnum):
    """How long trials train."""

    JUDGED = "judged"  # as planned by their parents' curves, and as their own let them
    PLANNED = "planned"  # as planned by their parents' curves
    FULL = "full"  # all epochs of the rung


@dataclass(frozen=True, slots=True)
class TrialTraining:
    """How the worker steers a training.

    Attributes:
        worker: the worker's name.
        should_stop: asked at every step.
        left_s: seconds until the search's deadline.
    """

    worker: str
    should_stop: Callable[[], StopReason | None]
    left_s: Callable[[], float] = lambda: math.inf


@dataclass(frozen=True, slots=True)
class TrialTrainer:
    """Trains the trials of one run on its snapshot.

    Attributes:
        context: the step's context.
        run: the run.
        manifest: the snapshot's manifest.
        train_rows: the training rows.
        selection: the rows that score trials.
        calibration: the rows that only final fits are compared on.
        symmetries: what the images bear.
        threads: CPU threads of one trial.
        rung: what a trial may spend.
        length: whether it may end before that, or be planned for less.
    """

    context: StepContext
    run: Run
    manifest: ImageEnvelope
    train_rows: Examples
    selection: Examples
    calibration: Examples
    symmetries: Symmetries
    threads: int
    rung: Rung = RUNG
    length: Length = Length.JUDGED

    @classmethod
    def load(cls, context: StepContext, run: Run) -> TrialTrainer:
        """Read the run's snapshot."""
        snapshot = ImageSnapshot.open(context.store, context.spec.name, run.snapshot)
        train = train_rows(snapshot, context.spec.search.workers)
        selection = Examples(*snapshot.tensors(Part.SELECTION))
        return cls(
            context,
            run,
            snapshot.envelope,
            train,
            selection,
            Examples(*snapshot.tensors(Part.CALIBRATION)),
            find_symmetries(train, selection),
            threads_of_trial(context.spec.search),
            rung_of(context.spec.search, len(train)),
        )

    @property
    def precision(self) -> Precision:
        """What the run's trainings compute in, as it was decided when the run was opened."""
        is_half = self.run.space is not None and self.run.space.recorded.get(BFLOAT16, 0)
        return Precision.BFLOAT16 if is_half else Precision.FLOAT32

    @property
    def normalization(self) -> Normalization:
        """Mean and standard deviation of the training rows."""
        return Normalization(tuple(self.manifest.mean), tuple(self.manifest.std))

    def train(self, trial: Trial, training: TrialTraining, alive: KeepAlive) -> TrialResult:
        """Train the trial's candidate until it is done or the worker stops it.

        Args:
            trial: the claimed trial.
            training: how the worker steers.
            alive: the trial's lease; when it is lost, the training stops at once and nothing more
                is written.

        Raises:
            LeaseLostError: the lease was lost.
        """
        assert trial.candidate is not None
        architecture = Architecture.from_genotype(trial.candidate.genotype)
        known = self._known(architecture)
        try:
            result = self._fit(trial, architecture, training, alive)
        except Exception as error:
            if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
                raise
            return TrialResult(Outcome.OUT_OF_MEMORY, Measurement(**known), _shortage(error))
        measured, network = result.measurement, known["network"]
        if measured.network is not None:
            network = network.model_copy(update={"micro_batch": measured.network.micro_batch})
        known = {**known, "network": network}
        return replace(result, measurement=measured.model_copy(update=known))

    def _known(self, architecture: Architecture) -> dict[str, Any]:
        """Return the part of the measurement that is known before the training."""
        device = training_device(self.context.spec.search.workers)
        facts = self.run.space.recorded if self.run.space else {}
        predicted = None
        if "batch_size" in facts:
            predicted = memory_need(architecture, training_plan(facts, device)).total
        return {
            "device": device.type,
            "predicted_bytes": predicted,
            "network": NetworkMeasurement(
                parameters=architecture.parameters,
                macs=architecture.macs,
                batch_size=min(self.rung.batch_size, len(self.train_rows)),
            ),
        }

    def _fit(
        self, trial: Trial, architecture: Architecture, training: TrialTraining, alive: KeepAlive
    ) -> TrialResult:
        assert trial.candidate is not None
        checkpoint = self.last_checkpoint(trial)
        resumed_at = 0 if checkpoint is None else checkpoint.epoch
        if checkpoint is not None:
            log.info("trial %d resumes at epoch %d", trial.number, resumed_at)
        storage = TrialStorage(self.context, trial, alive, checkpoint)
        judge = self._judge(trial, alive, checkpoint)
        study = self.context.record.study
        frozen = frozen_in(study, trial)
        seconds = trial_seconds(
            self.run,
            self.context.spec.search,
            training.left_s(),
            spent_s=0.0 if checkpoint is None else checkpoint.seconds,
            is_pretrained=frozen is not None,
        )
        problem = FitProblem(
            architecture=architecture,
            hyperparameters=trial.candidate.hyperparameters,
            normalization=self.normalization,
            symmetries=self.symmetries,
            train=self.train_rows,
            selection=self.selection,
            rung=replace(self.rung, seconds=seconds),
            seed=(self.context.spec.search.seed, trial.number),
            device=choose_device(),
            threads=useful_threads(architecture, self.threads),
            precision=self.precision,
            is_warm=trial.candidate.parent is not None or frozen is not None,
            frozen=frozen,
        )
        start = checkpoint if checkpoint is not None else self._start(trial, architecture)
        hooks = self._hooks(training, alive, storage, judge)
        with peak_memory(problem.device) as peak:
            result = fit(problem, start, hooks)
        if result.stopped in {StopReason.SLICE, StopReason.SIGNAL}:
            return TrialResult(None, Measurement(), str(result.stopped.value))
        # smaller images, with which trainings begin, say little of the peak
        is_whole = any(e.resolution == architecture.input_size for e in result.curve[resumed_at:])
        measurement = self._measure(architecture, result, storage).model_copy(
            update={
                "resumed_at": resumed_at,
                "peak_bytes": peak.size_bytes if is_whole else None,
                "network": NetworkMeasurement(micro_batch=result.micro_batch),
            }
        )
        if result.stopped is StopReason.DIVERGED:
            return TrialResult(Outcome.DIVERGED, measurement, result.cause)
        if result.stopped is StopReason.DEADLINE:
            cause = f"the search's deadline came after {result.epochs} epochs"
            return TrialResult(Outcome.TIMED_OUT, measurement, cause)
        if result.stopped is StopReason.PRUNED:
            assert judge is not None
            return TrialResult(Outcome.PRUNED, measurement, judge.cause)
        return TrialResult(Outcome.COMPLETED, measurement, "")

    def _judge(self, trial: Trial, alive: KeepAlive, checkpoint: Checkpoint | None) -> Judge | None:
        """Return who judges the training; None if it has its full length."""
        if self.length is Length.FULL:
            return None
        judge = Judge(
            self.context,
            trial,
            full=self.rung.epochs,
            rows=len(self.selection),
            size=self.manifest.image_size,
            alive=alive,
        )
        if self.length is Length.JUDGED and checkpoint is not None:
            judge.resume(checkpoint.curve)
        return judge

    def _hooks(
        self,
        training: TrialTraining,
        alive: KeepAlive,
        storage: TrialStorage,
        judge: Judge | None,
    ) -> FitHooks:
        """Return how worker, lease, storage and judge take part in a training."""
        verdicts = judge if self.length is Length.JUDGED else None

        def should_stop() -> StopReason | None:
            alive.check()
            verdict = None if verdicts is None else verdicts.stop_reason()
            return verdict or training.should_stop()

        def on_epoch(epoch: EpochResult) -> StopReason | None:
            storage.add_epoch(epoch)
            return None if verdicts is None else verdicts.on_epoch(epoch)

        def replan(first: EpochResult) -> int | None:
            return None if judge is None else judge.replan(first)

        return FitHooks(
            should_stop=should_stop, on_epoch=on_epoch, save=storage.save, replan=replan
        )

    def _measure(
        self, architecture: Architecture, result: FitResult, storage: TrialStorage
    ) -> Measurement:
        """Store the best weights and what they predict, and return what was measured."""
        latency_ms = key = None
        objective = self.context.spec.search.objective
        if result.best_weights is not None:
            key = storage.put_weights(weights_to_bytes(result.best_weights))
            held_out = {"selection": self.selection, "calibration": self.calibration}
            arrays: dict[str, np.ndarray] = {}
            for name, rows in held_out.items():
                arrays[f"{name}_labels"] = rows.labels
                arrays[f"{name}_probabilities"] = predict_probabilities(
                    architecture, result.best_weights, self.normalization, rows.images, self.threads
                )
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **arrays)
            storage.put_validation(buffer.getvalue())
            latency_ms = measure_latency_ms(architecture, result.best_weights, self.normalization)
        return Measurement(
            score=result.score,
            error=result.error,
            loss=None if result.score is None else objective.loss(result.score),
            epochs=result.epochs,
            best_epoch=result.best_epoch,
            seconds=round(result.seconds, 3),
            latency_ms=latency_ms,
            weights=key,
            log_loss=result.log_loss,
        )

    def _start(self, trial: Trial, architecture: Architecture) -> InitialWeights | None:
        """Return the parent's weights, moved, or pretrained ones, or None for fresh ones."""
        candidate = trial.candidate
        assert candidate is not None
        if candidate.parent is None:
            return pretrained_weights(self.context, trial, self.normalization)
        parent = self.context.record.study.trials[candidate.parent]
        assert parent.candidate is not None
        place, weights = inherit(
            Architecture.from_genotype(parent.candidate.genotype),
            load_weights(self.context, parent),
            [Move.from_json(document) for document in candidate.moves],
        )
        if place.genotype() != architecture.genotype():
            raise TrainingError(
                f"The moves of trial {trial.number} do not lead from trial {parent.number} to its "
                "architecture.",
                "the log was written by an incompatible version; start a new study",
            )
        return InitialWeights(weights)

    def last_checkpoint(self, trial: Trial) -> Checkpoint | None:
        """Return the newest checkpoint that counts and can be read, or None.

        Args:
            trial: the trial as this worker has claimed it.
        """
        keys = counting_checkpoints(self.context, trial)
        for key in keys:
            try:
                return Checkpoint.from_bytes(self.context.store.get(key).data)
            except DamagedDataError as error:
                log.warning("%s is damaged, trying the one before: %s", key, error)
            except NotFoundError:  # a process that was frozen has tidied up after itself
                log.warning("%s is gone, trying the one before", key)
        if keys:
            log.warning("trial %d has no checkpoint that can be read: it starts anew", trial.number)
        return None


def _shortage(error: Exception) -> str:
    """Return what a memory error says; those of libraries often say nothing."""
    return str(error) if isinstance(error, OutOfMemoryError) else f"memory ran out: {error!r}"


def training_device(workers: int) -> Device:
    """Return where this process trains, and what one of `workers` trainings may take there."""
    return Device(type=device_type(), memory_bytes=training_capacity(choose_device(), workers))


def rung_of(search: SearchSection, rows: int) -> Rung:
    """Return what a trial may spend.

    A search that ends after a number of trials gives each of them `RUNG`. Where time decides, small
    data get more epochs, in which fresh weights go on learning, and as much more patience.

    Args:
        search: how it searches.
        rows: training rows.
    """
    if search.max_trials is not None:
        return RUNG
    epochs = min(max(RUNG.epochs, _ENOUGH_EXAMPLES // rows), MOST_EPOCHS)
    return replace(RUNG, epochs=epochs, patience=RUNG.patience * epochs // RUNG.epochs)


def useful_threads(architecture: Architecture, available: int) -> int:
    """Return how many of the available CPU threads a training of the architecture should use.

    Layers of small networks do not repay the synchronisation between threads: copies of them, each
    with a part of the batch, have one each.
    """
    if architecture.macs >= _SMALL_MACS:
        return available
    return most_copies(choose_device(), available, RUNG.batch_size)
