"""Judging a training while it runs: rungs go into the log, and the log decides who goes on.

What is decided is in `automl.search.pruning`; here it meets the study's log and the files of
curves. A verdict that a kill has made undone is reached again by the attempt after it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from automl.domain.events import Event, RungReached
from automl.domain.study import Study
from automl.domain.training import StopReason
from automl.domain.trial import Trial, TrialState
from automl.errors import DamagedDataError
from automl.runs.context import StepContext
from automl.runs.curves import curve_point, read_curve
from automl.search.pruning import (
    CurvePoint,
    Rungs,
    changes_slowly,
    planned_epochs,
    verdict,
)
from automl.storage.leases import KeepAlive
from automl.tracks.image.space import SLOW_GENES
from automl.training.checkpoint import EpochResult
from automl.training.problem import standard_error

_WHOLE = 0.99  # of a training's time

log = logging.getLogger(__name__)


class Judge:
    """Judges the training of one claimed trial.

    Attributes:
        cause: why the trial ends early; "" while it may go on.

    Args:
        context: the step's context.
        trial: the trial as this worker has claimed it.
        full: epochs of a training that is neither stopped nor shortened.
        rows: how many selection rows there are.
        size: height and width of the images, in pixels.
        alive: the trial's lease; nothing is written after it is lost.
    """

    def __init__(  # noqa: PLR0913 - what a training is judged by
        self, context: StepContext, trial: Trial, full: int, rows: int, size: int, alive: KeepAlive
    ) -> None:
        self._context, self._trial, self._alive = context, trial, alive
        self._objective = context.spec.search.objective
        self._full, self._rows, self._size = full, rows, size
        self._curve: list[EpochResult] = []
        self._planned: int | None = None  # before it is known
        self.cause = ""

    def resume(self, curve: Sequence[EpochResult]) -> None:
        """Take in the epochs of the attempts before, and judge the last one anew.

        Args:
            curve: the epochs so far; may be empty.
        """
        self._curve = list(curve)
        if self._curve:
            self._judge()

    def on_epoch(self, epoch: EpochResult) -> StopReason | None:
        """Take in a complete epoch, and return whether the trial ends here."""
        self._curve.append(epoch)
        self._judge()
        return self.stop_reason()

    def stop_reason(self) -> StopReason | None:
        """Return whether the trial ends."""
        return StopReason.PRUNED if self.cause else None

    def replan(self, first: EpochResult) -> int | None:
        """Return for how many epochs to train in all; None for the full number.

        Args:
            first: the first epoch.
        """
        planned = self._length(first)
        return None if planned == self._full else planned

    def _judge(self) -> None:
        """Decide by what is measured so far, where every epoch was."""
        measured = (curve_point(epoch, self._size, self._objective) for epoch in self._curve)
        points = [point for point in measured if point is not None]
        if len(points) < len(self._curve):
            return
        planned = self._length(self._curve[0])
        rung = Rungs.of(planned).passed(points[-1].share)
        study = self._context.record.refresh()
        known = study.trials[self._trial.number].rungs
        if rung is not None and all(result.rung < rung for result in known):
            self._alive.check()
            best = min(points, key=lambda point: point.log_loss)
            study = record_rung(self._context, self._reached(rung, planned, best))
        number = self._trial.number
        self.cause = verdict(study, number, points, planned, SLOW_GENES) or ""

    def _reached(self, rung: int, planned: int, best: CurvePoint) -> RungReached:
        score = self._objective.score(best.loss)
        return RungReached(
            at=self._context.clock.now(),
            n=self._trial.number,
            attempt=self._trial.attempt,
            run=self._context.run,
            rung=rung,
            epochs=len(self._curve),
            planned=planned,
            loss=best.loss,
            score=score,
            error=standard_error(score, self._rows),
            log_loss=best.log_loss,
            resolution=self._curve[-1].resolution or None,  # 0: an earlier release's
        )

    def _length(self, first: EpochResult) -> int:
        """Return the planned number of epochs; what the log says of the trial comes first."""
        if self._planned is None:
            rungs = self._trial.rungs
            self._planned = rungs[0].planned if rungs else self._plan(first)
        return self._planned

    def _plan(self, first: EpochResult) -> int:
        study, candidate = self._context.record.study, self._trial.candidate
        assert candidate is not None
        if candidate.parent is None or first.selection_loss is None:
            return self._full
        parent = study.trials[candidate.parent]
        is_comparable = (parent.generation, parent.snapshot) == (
            self._trial.generation, self._trial.snapshot,
        )  # fmt: skip
        if not is_comparable or changes_slowly(study, self._trial, SLOW_GENES):
            return self._full
        curve = self._curve_of(parent)
        losses = [epoch.selection_loss for epoch in curve if epoch.selection_loss is not None]
        if not losses or _was_short_of_time(curve, parent, self._full):
            return self._full
        planned = planned_epochs(losses, first.selection_loss, self._full)
        log.info(
            "trial %d is planned for %d epochs by the curve of trial %d",
            self._trial.number, planned, parent.number,
        )  # fmt: skip
        return planned

    def _curve_of(self, parent: Trial) -> Sequence[EpochResult]:
        """Return the parent's curve, an empty one if it cannot be read."""
        try:
            return read_curve(self._context.store, self._context.spec.name, parent)
        except DamagedDataError as error:
            log.warning("trial %d trains in full: %s", self._trial.number, error)
            return []


def _was_short_of_time(curve: Sequence[EpochResult], trial: Trial, full: int) -> bool:
    """Return whether a training had time for some of its epochs only.

    It ended because its time did, not because it had learned all it could: its children go on
    where it ended.
    """
    planned = trial.rungs[0].planned if trial.rungs else full
    return len(curve) < planned and curve[-1].progress >= _WHOLE


def record_rung(context: StepContext, reached: RungReached) -> Study:
    """Record what a claimed trial has at a rung, and return the study as the log tells it.

    Nothing is recorded if the rung has a result already, of this attempt or of one before it, or if
    a later attempt has been claimed.
    """

    def decide(study: Study) -> Sequence[Event]:
        trial = study.trials[reached.n]
        if trial.state is not TrialState.CLAIMED or trial.attempt != reached.attempt:
            return ()
        if any(known.rung == reached.rung for known in trial.rungs):
            return ()
        return (reached,)

    return context.record.commit(decide)
