"""Training one claimed trial: what the track fits meets the log, the lease and the home."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from automl.domain.study import Run, Study, lineage
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Device, Measurement, Outcome, Trial
from automl.runs.context import StepContext
from automl.runs.judging import Judge
from automl.runs.trial_files import TrialStorage, load_model, stored_checkpoints
from automl.runs.trials import TrialResult
from automl.search.budget import time_budget
from automl.search.pruning import Judging
from automl.storage.leases import KeepAlive
from automl.storage.shard_cache import snapshot_files
from automl.tracks.track import Ancestor, Fitted, Fitter, Job, track_of

_OUTCOMES = {
    None: Outcome.COMPLETED,
    StopReason.DEADLINE: Outcome.TIMED_OUT,
    StopReason.DIVERGED: Outcome.DIVERGED,
    StopReason.OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
    StopReason.PRUNED: Outcome.PRUNED,
}

log = logging.getLogger(__name__)


class Length(StrEnum):
    """Length of the trainings of trials."""

    JUDGED = "judged"  # as planned by their parents' curves, and as their own let them
    PLANNED = "planned"  # as planned by their parents' curves
    FULL = "full"  # all rounds


@dataclass(frozen=True, slots=True)
class TrialTraining:
    """Steering of a training by its worker.

    Attributes:
        worker: the worker's name.
        should_stop: asked at every step.
        left_s: seconds until the search's deadline.
    """

    worker: str
    should_stop: Callable[[], StopReason | None]
    left_s: Callable[[], float] = lambda: math.inf


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Files that a track keeps with a study; see `StudyFiles`.

    Attributes:
        context: the step's context.
    """

    context: StepContext

    def put(self, name: str, data: bytes) -> None:
        """Write a file; the same name always has the same bytes."""
        self.context.store.put(self._key(name), data)

    def get(self, name: str) -> bytes:
        """Return a file's bytes; raise NotFoundError without one."""
        return self.context.store.get(self._key(name)).data

    def _key(self, name: str) -> str:
        return self.context.keys.file(name)


def lineage_of(study: Study, trial: Trial) -> tuple[Ancestor, ...]:
    """Return a proposed trial, its parent and so on up to its seed, as tracks see them."""
    found = []
    for one in lineage(study, trial):
        assert one.candidate is not None
        run = study.run(one.run)
        space = None if run is None else run.space
        found.append(Ancestor(one.number, one.candidate, space, one.measurement))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class TrialTrainer:
    """Trainer of the trials of one run.

    Attributes:
        context: the step's context.
        run: the run.
        fitter: fits candidates on the run's snapshot.
        judging: the track's rules.
        sizes: what a search space depends on, the snapshot's rows alone considered.
        details: what a model that is fitted on the snapshot is kept with.
        length: whether a trial may end before its full length, or be planned for less.
    """

    context: StepContext
    run: Run
    fitter: Fitter
    judging: Judging
    sizes: Mapping[str, int | str]
    details: Mapping[str, Any]
    length: Length = Length.JUDGED

    @classmethod
    def load(cls, context: StepContext, run: Run) -> TrialTrainer:
        """Read the run's snapshot."""
        track = track_of(context.spec.task)
        files = snapshot_files(context.store, context.settings)
        dataset = track.open(files, context.spec.name, run.snapshot)
        fitter = dataset.fitter(context.spec.search, run.space, StudyFolder(context))
        return cls(context, run, fitter, track.judging, dataset.size_facts(), dataset.details)

    @property
    def device(self) -> Device:
        """Device of this process, and the memory that one of the run's trainings may take there."""
        return self.fitter.device

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
        storage = TrialStorage(self.context, trial, alive)
        judge = self._judge(trial, alive)
        hooks = _TrialHooks(training, alive, storage, judge, self.length)
        fitted = self.fitter.fit(self._job(trial, training), hooks)
        if fitted.stopped in {StopReason.SLICE, StopReason.SIGNAL}:
            assert fitted.stopped is not None
            return TrialResult(None, Measurement(), fitted.stopped.value)
        measurement = self._measured(fitted, storage.keep(fitted))
        cause = fitted.cause
        if fitted.stopped is StopReason.DEADLINE:
            cause = f"the search's deadline came after {measurement.epochs} epochs"
        elif fitted.stopped is StopReason.PRUNED:
            assert judge is not None
            cause = judge.cause
        return TrialResult(_OUTCOMES[fitted.stopped], measurement, cause)

    def _job(self, trial: Trial, training: TrialTraining) -> Job:
        context, study = self.context, self.context.record.study
        assert trial.candidate is not None
        parent = trial.candidate.parent

        def parent_model() -> bytes:
            assert parent is not None
            return load_model(context, study.trials[parent])

        limit_s = (self.run.deadline - self.run.opened_at).total_seconds()
        trial_ms = None if self.run.space is None else self.run.space.trial_ms
        return Job(
            lineage=lineage_of(study, trial),
            seed=(context.spec.search.seed, trial.number),
            parent=None if parent is None else parent_model,
            checkpoints=stored_checkpoints(context, trial),
            budget=time_budget(limit_s, context.spec.search, trial_ms, training.left_s()),
        )

    def _judge(self, trial: Trial, alive: KeepAlive) -> Judge | None:
        """Return who judges the training; None if it has its full length."""
        if self.length is Length.FULL:
            return None
        return Judge(self.context, trial, self.fitter.rounds, self.judging, alive)

    def _measured(self, fitted: Fitted, key: str | None) -> Measurement:
        """Return the measurement with what the run knows of it."""
        score = fitted.measurement.score
        loss = None if score is None else self.context.spec.search.objective.loss(score)
        return fitted.measurement.model_copy(update={"loss": loss, "weights": key})


@dataclass(frozen=True, slots=True)
class _TrialHooks:
    """Worker, lease, storage and judge, as the training sees them; see `Hooks`."""

    training: TrialTraining
    alive: KeepAlive
    storage: TrialStorage
    judge: Judge | None
    length: Length

    @property
    def _verdicts(self) -> Judge | None:
        return self.judge if self.length is Length.JUDGED else None

    def stop(self) -> StopReason | None:
        self.alive.check()
        verdict = None if self._verdicts is None else self._verdicts.stop_reason()
        return verdict or self.training.should_stop()

    def resumed(self, curve: Sequence[CurvePoint]) -> None:
        self.storage.resume(curve)
        if self._verdicts is not None:
            self._verdicts.resume(curve)

    def reached(self, point: CurvePoint) -> StopReason | None:
        self.storage.add(point)
        return None if self._verdicts is None else self._verdicts.on_point(point)

    def plan(self, first: CurvePoint) -> int | None:
        return None if self.judge is None else self.judge.replan(first)

    def save(self, position: int, checkpoint: bytes) -> None:
        self.storage.save(position, checkpoint)
