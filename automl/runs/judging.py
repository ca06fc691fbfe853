"""Judging a training while it runs: rungs go into the log, and the log decides who goes on.

What is decided is in `automl.search.pruning`; here it meets the study's log and the files of
curves. A verdict that a kill has made undone is reached again by the attempt after it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from automl.domain.events import Event, RungReached
from automl.domain.objective import Objective
from automl.domain.study import Study
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Trial, TrialState
from automl.errors import DamagedDataError
from automl.runs.context import StepContext
from automl.runs.curves import read_curve
from automl.search.pruning import (
    JudgedPoint,
    Judging,
    changes_unjudged,
    planned_epochs,
    verdict,
)
from automl.storage.leases import KeepAlive

_NEARLY_ALL = 0.99  # of a training's time

log = logging.getLogger(__name__)


class Judge:
    """Judge of the training of one claimed trial.

    Attributes:
        cause: why the trial ends early; "" while it may go on.

    Args:
        context: the step's context.
        trial: the trial as this worker has claimed it.
        full: rounds of a training that is neither stopped nor shortened.
        judging: the track's rules.
        alive: the trial's lease; nothing is written after it is lost.
    """

    def __init__(
        self, context: StepContext, trial: Trial, full: int, judging: Judging, alive: KeepAlive
    ) -> None:
        self._context, self._trial, self._alive = context, trial, alive
        self._full, self._judging = full, judging
        self._curve: list[CurvePoint] = []
        self._planned: int | None = None  # before it is known
        self.cause = ""

    @property
    def _objective(self) -> Objective:
        return self._context.spec.search.objective

    def resume(self, curve: Sequence[CurvePoint]) -> None:
        """Take in the rounds of the attempts before, and judge the last one anew.

        Args:
            curve: the rounds so far; may be empty.
        """
        self._curve = list(curve)
        if self._curve:
            self._judge()

    def on_point(self, point: CurvePoint) -> StopReason | None:
        """Take in a complete round, and return whether the trial ends here."""
        self._curve.append(point)
        self._judge()
        return self.stop_reason()

    def stop_reason(self) -> StopReason | None:
        """Return whether the trial ends."""
        return StopReason.PRUNED if self.cause else None

    def replan(self, first: CurvePoint) -> int | None:
        """Return for how many rounds to train in all; None for the full number.

        Args:
            first: the first round.
        """
        planned = self._length(first)
        return None if planned == self._full else planned

    def _judge(self) -> None:
        """Decide by what is measured so far, where every round was."""
        points = judged_points(self._curve, self._objective)
        if points is None:
            return
        planned = self._length(self._curve[0])
        rung = self._judging.rungs(planned).passed(points[-1].share)
        study = self._context.record.refresh()
        known = study.trials[self._trial.number].rungs
        if rung is not None and all(result.rung < rung for result in known):
            self._alive.check()
            study = record_rung(self._context, self._reached(rung, planned))
        self.cause = verdict(study, self._trial.number, points, planned, self._judging) or ""

    def _reached(self, rung: int, planned: int) -> RungReached:
        """Return what the trial has at a rung: the best round's."""
        best = min(self._curve, key=self._rank)
        assert best.score is not None
        last = self._curve[-1]
        return RungReached(
            at=self._context.clock.now(),
            n=self._trial.number,
            attempt=self._trial.attempt,
            run=self._context.run,
            rung=rung,
            epochs=len(self._curve),
            planned=planned,
            loss=self._objective.loss(best.score),
            score=best.score,
            error=best.error or 0.0,
            log_loss=best.log_loss,
            resolution=int(last.details.get("resolution", 0)) or None,  # 0: an earlier release's
            share=last.share,
        )

    def _rank(self, point: CurvePoint) -> float:
        """Return what the best round has least of: as the training itself picks it."""
        assert point.score is not None
        return self._objective.loss(point.score) if point.log_loss is None else point.log_loss

    def _length(self, first: CurvePoint) -> int:
        """Return the planned number of rounds; what the log says of the trial comes first."""
        if self._planned is None:
            rungs = self._trial.rungs
            self._planned = rungs[0].planned if rungs else self._plan(first)
        return self._planned

    def _plan(self, first: CurvePoint) -> int:
        study, candidate = self._context.record.study, self._trial.candidate
        assert candidate is not None
        if candidate.parent is None or first.log_loss is None:
            return self._full
        parent = study.trials[candidate.parent]
        is_comparable = (parent.generation, parent.snapshot) == (
            self._trial.generation, self._trial.snapshot,
        )  # fmt: skip
        if not is_comparable or changes_unjudged(study, self._trial, self._judging.unjudged):
            return self._full
        curve = self._curve_of(parent)
        losses = [point.log_loss for point in curve if point.log_loss is not None]
        if not losses or _was_short_of_time(curve, parent, self._full):
            return self._full
        planned = planned_epochs(losses, first.log_loss, self._full)
        log.info(
            "trial %d is planned for %d epochs by the curve of trial %d",
            self._trial.number, planned, parent.number,
        )  # fmt: skip
        return planned

    def _curve_of(self, parent: Trial) -> Sequence[CurvePoint]:
        """Return the parent's curve, an empty one if it cannot be read."""
        try:
            return read_curve(self._context.store, self._context.spec.name, parent)
        except DamagedDataError as error:
            log.warning("trial %d trains in full: %s", self._trial.number, error)
            return []


def judged_points(curve: Sequence[CurvePoint], objective: Objective) -> list[JudgedPoint] | None:
    """Return what a trial is judged by.

    Args:
        curve: its rounds so far.
        objective: what its search optimises.

    Returns:
        None if a round has no score, or is of a release that did not tell its share.
    """
    if any(point.score is None or point.share <= 0 for point in curve):
        return None
    return [
        JudgedPoint(
            loss=objective.loss(point.score),
            log_loss=point.log_loss,
            share=point.share,
            is_full=point.is_full,
        )
        for point in curve
        if point.score is not None
    ]


def _was_short_of_time(curve: Sequence[CurvePoint], trial: Trial, full: int) -> bool:
    """Return whether a training had time for some of its rounds only.

    It ended because its time did, not because it had learned all it could: its children go on
    where it ended.
    """
    planned = trial.rungs[0].planned if trial.rungs else full
    return len(curve) < planned and curve[-1].share >= _NEARLY_ALL


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
