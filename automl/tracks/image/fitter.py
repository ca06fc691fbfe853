"""Fitting candidates on a snapshot of images: trials, and the final fit of the winner."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from automl.data.splits import Part
from automl.domain.candidate import Candidate
from automl.domain.facts import SpaceFacts
from automl.domain.specification import SearchSection
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Device, Measurement, NetworkMeasurement
from automl.errors import OutOfMemoryError, TrainingError
from automl.machine.cores import threads_of_final_fit, threads_of_trial
from automl.morphism.architecture import Architecture
from automl.morphism.memory import memory_need
from automl.morphism.moves import Move, inherit
from automl.search.budget import TimeBudget
from automl.tracks.image.cross_fit import cross_fitted
from automl.tracks.image.facts import ImageFacts
from automl.tracks.image.members import normalization_of, weights_of
from automl.tracks.image.memory import precision_of, training_plan
from automl.tracks.image.pretrained import frozen_in
from automl.tracks.image.pretrained_weights import fresh_weights, pretrained_weights
from automl.tracks.image.refit import RefitPlan, plan_refit
from automl.tracks.image.rows import LabelledRows, joined, read_rows
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from automl.tracks.image.spending import budget_of, useful_threads
from automl.tracks.track import (
    Ancestor,
    CrossFit,
    Fitted,
    Hooks,
    Job,
    Member,
    Predictions,
    Refit,
    Refitted,
    StudyFiles,
    first_whole,
)
from automl.training.capacity import training_capacity
from automl.training.checkpoint import Checkpoint, EpochResult
from automl.training.device import choose_device, device_type, is_out_of_memory
from automl.training.inference import measure_latency_ms, predict_probabilities
from automl.training.module import Normalization
from automl.training.peak_memory import peak_memory
from automl.training.problem import (
    Budget,
    FitHooks,
    FitProblem,
    FitResult,
    InitialWeights,
    standard_error,
)
from automl.training.results import weights_from_bytes, weights_to_bytes
from automl.training.trainer import fit

_SMALLEST = 1e-12  # of a probability, for its logarithm

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageFitter:
    """Fits networks on one snapshot; see `Fitter`.

    Attributes:
        rows: the snapshot's rows by what they are for.
        images: what the snapshot holds.
        search: how the run searches.
        facts: what its opening recorded, or None.
        files: kept with the study.
        budget: what a trial may spend.
    """

    rows: LabelledRows
    images: ImageEnvelope
    search: SearchSection
    facts: ImageFacts | None
    files: StudyFiles
    budget: Budget

    @classmethod
    def load(
        cls,
        snapshot: ImageSnapshot,
        search: SearchSection,
        facts: SpaceFacts | None,
        files: StudyFiles,
    ) -> ImageFitter:
        """Read the snapshot; see `Dataset.fitter`."""
        rows = read_rows(snapshot, search.workers)
        return cls(
            rows=rows,
            images=snapshot.envelope,
            search=search,
            facts=None if facts is None else ImageFacts.read(facts, search.limits),
            files=files,
            budget=budget_of(search, len(rows.train)),
        )

    @property
    def normalization(self) -> Normalization:
        """Mean and standard deviation of the training rows."""
        return Normalization(self.images.mean, self.images.std)

    @property
    def device(self) -> Device:
        """Device of this process, and the memory that one of the run's trainings may take there."""
        capacity = training_capacity(choose_device(), self.search.workers)
        return Device(type=device_type(), memory_bytes=capacity)

    @property
    def rounds(self) -> int:
        """Epochs of a training that is neither stopped nor shortened."""
        return self.budget.epochs

    def fit(self, job: Job, hooks: Hooks) -> Fitted:
        """Train the candidate's network; see `Fitter.fit`.

        Raises:
            TrainingError: the moves do not lead from the parent to the candidate.
        """
        architecture = Architecture.from_genotype(job.candidate.genotype)
        known = self._known(architecture)
        try:
            return self._fit(job, architecture, known, hooks)
        except Exception as error:
            if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
                raise
            return Fitted(StopReason.OUT_OF_MEMORY, _shortage(error), known)

    def _known(self, architecture: Architecture) -> Measurement:
        """Return the part of the measurement that is known before the training."""
        device, predicted = self.device, None
        if self.facts is not None and self.facts.batch_size is not None:
            predicted = memory_need(architecture, training_plan(self.facts, device)).total
        return Measurement(
            device=device.type,
            predicted_bytes=predicted,
            network=NetworkMeasurement(
                parameters=architecture.parameters,
                macs=architecture.macs,
                batch_size=min(self.budget.batch_size, len(self.rows.train)),
            ),
        )

    def _fit(
        self, job: Job, architecture: Architecture, known: Measurement, hooks: Hooks
    ) -> Fitted:
        checkpoint = first_whole(job.checkpoints, Checkpoint.from_bytes)
        resumed_at = 0 if checkpoint is None else checkpoint.epoch
        if checkpoint is not None:
            hooks.resumed([self._point(epoch) for epoch in checkpoint.curve])
        problem = self._problem(job.candidate, job.lineage, job.seed)
        time = job.budget if problem.frozen is None else self._pretrained_budget(job.budget)
        seconds = time.seconds(spent_s=0.0 if checkpoint is None else checkpoint.seconds)
        problem = replace(problem, budget=replace(self.budget, seconds=seconds))
        start = checkpoint if checkpoint is not None else self._start(job, architecture)
        with peak_memory(problem.device) as peak:
            result = fit(problem, start, self._hooks(hooks))
        if result.stopped in {StopReason.SLICE, StopReason.SIGNAL}:
            return Fitted(result.stopped, "", Measurement())
        # smaller images, with which trainings begin, say little of the peak
        is_full = any(
            epoch.resolution == self.images.image_size for epoch in result.curve[resumed_at:]
        )
        measured = known.model_copy(
            update={"resumed_at": resumed_at, "peak_bytes": peak.size_bytes if is_full else None}
        )
        return self._judged(architecture, result, measured)

    def _problem(
        self, candidate: Candidate, lineage: Sequence[Ancestor], seed: tuple[int, ...]
    ) -> FitProblem:
        """Return a candidate's training on the rows of trials, whatever time it takes."""
        architecture = Architecture.from_genotype(candidate.genotype)
        frozen = frozen_in(lineage)
        return FitProblem(
            architecture=architecture,
            hyperparameters=candidate.hyperparameters,
            normalization=self.normalization,
            symmetries=self.rows.symmetries,
            train=self.rows.train,
            selection=self.rows.selection,
            budget=self.budget,
            seed=seed,
            device=choose_device(),
            threads=useful_threads(architecture, threads_of_trial(self.search)),
            precision=precision_of(self.facts),
            is_warm=candidate.parent is not None or frozen is not None,
            frozen=frozen,
        )

    def _pretrained_budget(self, time: TimeBudget) -> TimeBudget:
        """Return the budget of a pretrained network, which may need less time than fresh ones."""
        if time.full_s is None or self.facts is None or self.facts.pretrained_ms is None:
            return time
        return replace(time, full_s=self.facts.pretrained_ms / 1000)

    def _hooks(self, hooks: Hooks) -> FitHooks:
        """Return how the outside takes part, in the terms of the training loop."""
        return FitHooks(
            should_stop=hooks.stop,
            on_epoch=lambda epoch: hooks.reached(self._point(epoch)),
            save=lambda checkpoint: hooks.save(checkpoint.epoch, checkpoint.to_bytes()),
            replan=lambda first: hooks.plan(self._point(first)),
        )

    def _point(self, epoch: EpochResult) -> CurvePoint:
        """Return an epoch as a point of the learning curve."""
        score = epoch.selection_accuracy
        rows = len(self.rows.selection)
        return CurvePoint(
            epoch=epoch.epoch,
            share=epoch.progress,
            score=score,
            error=None if score is None else standard_error(score, rows),
            log_loss=epoch.selection_loss,
            train_loss=epoch.train_loss,
            seconds=epoch.seconds,
            is_full=epoch.resolution == self.images.image_size,
            details={
                "learning_rate": epoch.learning_rate,
                "examples": epoch.examples,
                "evaluation_seconds": epoch.evaluation_seconds,
                "resolution": epoch.resolution,
            },
        )

    def _judged(
        self, architecture: Architecture, result: FitResult, measured: Measurement
    ) -> Fitted:
        """Return what a training came to, with what its best weights predict."""
        assert measured.network is not None
        measured = measured.model_copy(
            update={
                "score": result.score,
                "error": result.error,
                "epochs": result.epochs,
                "best_epoch": result.best_epoch,
                "seconds": round(result.seconds, 3),
                "log_loss": result.log_loss,
                "network": measured.network.model_copy(update={"micro_batch": result.micro_batch}),
            }
        )
        weights = result.best_weights
        if weights is None:
            return Fitted(result.stopped, result.cause, measured)
        latency_ms = measure_latency_ms(architecture, weights, self.normalization)
        threads = threads_of_trial(self.search)

        def predictions(part: Part) -> Predictions:
            rows = self.rows.of(part)
            probabilities = predict_probabilities(
                architecture, weights, self.normalization, rows.images, threads
            )
            return Predictions(self.rows.keys(part), probabilities, rows.labels)

        return Fitted(
            result.stopped,
            result.cause,
            measured.model_copy(update={"latency_ms": latency_ms}),
            model=weights_to_bytes(weights),
            judged=predictions(Part.SELECTION),
            calibration=predictions(Part.CALIBRATION),
        )

    def _start(self, job: Job, architecture: Architecture) -> InitialWeights | None:
        """Return the parent's weights, moved, or pretrained ones, or None for fresh ones."""
        trial = job.lineage[0]
        if job.parent is None:
            return pretrained_weights(self.files, trial, self.normalization)
        parent = job.lineage[1]
        place, weights = inherit(
            Architecture.from_genotype(parent.candidate.genotype),
            weights_from_bytes(job.parent(), f"The model of trial {parent.number}"),
            [Move.from_json(document) for document in trial.candidate.moves],
        )
        if place.genotype() != architecture.genotype():
            raise TrainingError(
                f"The moves of trial {trial.number} do not lead from trial {parent.number} to its "
                "architecture.",
                "the log was written by an incompatible version; start a new study",
            )
        return InitialWeights(weights)

    def refit(self, job: Refit, hooks: Hooks) -> Refitted:
        """Fit the winner's network on training and selection rows; see `Fitter.refit`."""
        plan = plan_refit(job, self.search, self.rows)
        normalization = self._normalization_of(job.incumbent)
        checkpoint = first_whole(job.checkpoints, Checkpoint.from_bytes)
        if checkpoint is not None:
            log.info("the final fit resumes at epoch %d", checkpoint.epoch)
        problem = self._refit_problem(job, plan, normalization, checkpoint)
        start: Checkpoint | InitialWeights | None = checkpoint
        if start is None:
            start = (
                fresh_weights(self.files, job.lineage, normalization)
                if plan.is_fresh
                else InitialWeights(weights_of(job.incumbent))
            )
        try:
            result = fit(problem, start, self._hooks(hooks))
        except OutOfMemoryError as error:
            return Refitted(None, plan.source, 0, f"the fit failed: {error}")
        return self._refitted(job, plan, normalization, result)

    def _refit_problem(
        self,
        job: Refit,
        plan: RefitPlan,
        normalization: Normalization,
        checkpoint: Checkpoint | None,
    ) -> FitProblem:
        problem = self._problem(job.incumbent.candidate, job.lineage, job.seed)
        return replace(
            problem,
            normalization=normalization,
            train=joined(self.rows.train, self.rows.selection),
            selection=None,
            budget=replace(
                self.budget,
                epochs=plan.epochs,
                patience=0,
                seconds=plan.seconds(0.0 if checkpoint is None else checkpoint.seconds),
            ),
            threads=useful_threads(problem.architecture, threads_of_final_fit(self.search)),
            is_warm=not plan.is_fresh or problem.frozen is not None,
        )

    def _refitted(
        self, job: Refit, plan: RefitPlan, normalization: Normalization, result: FitResult
    ) -> Refitted:
        if result.stopped is StopReason.SIGNAL:
            return Refitted(None, plan.source, result.epochs, stopped=result.stopped)
        if result.stopped is StopReason.DIVERGED:
            return Refitted(None, plan.source, 0, f"the fit failed: {result.cause}", result.stopped)
        notes = [plan.note] if plan.note else []
        if result.epochs < plan.epochs and not notes:
            fitting = f"{result.epochs} of {plan.epochs} epochs"
            notes = [f"{fitting} fit into final_fit.time_limit of {job.limit_s:g} s"]
        weights = result.best_weights
        if weights is not None and not all(np.isfinite(array).all() for array in weights.values()):
            weights = None
            notes.append("its weights are not finite")
        member = None
        if weights is not None:
            member = Member(
                job.incumbent.candidate,
                weights_to_bytes(weights),
                {"mean": list(normalization.mean), "std": list(normalization.std)},
            )
        return Refitted(member, plan.source, result.epochs, "; ".join(notes), result.stopped)

    def losses(self, member: Member) -> NDArray[np.float64]:
        """Return the log loss (nats) of each calibration row [n]."""
        rows = self.rows.calibration
        probabilities = predict_probabilities(
            Architecture.from_genotype(member.candidate.genotype),
            weights_of(member),
            self._normalization_of(member),
            rows.images,
            threads_of_final_fit(self.search),
        )
        chosen = probabilities[np.arange(len(rows)), rows.labels]
        return np.asarray(-np.log(np.maximum(chosen, _SMALLEST)), dtype=np.float64)

    def cross_fit(self, job: CrossFit, hooks: Hooks) -> Predictions | None:
        """Predict training rows by fits on the other half of them; see `Fitter.cross_fit`."""
        problem = self._problem(job.lineage[0].candidate, job.lineage, job.seed)
        threads = useful_threads(problem.architecture, threads_of_final_fit(self.search))
        start = fresh_weights(self.files, job.lineage, self.normalization)
        asked = FitHooks(
            should_stop=hooks.stop, on_epoch=lambda epoch: hooks.reached(self._point(epoch))
        )
        return cross_fitted(job, replace(problem, threads=threads), start, self.rows, asked)

    def _normalization_of(self, member: Member) -> Normalization:
        return Normalization(*normalization_of(member, self.images))


def _shortage(error: Exception) -> str:
    """Return what a memory error says; those of libraries often say nothing."""
    return str(error) if isinstance(error, OutOfMemoryError) else f"memory ran out: {error!r}"
