"""Final fits of a run: what is fitted, within which limits, and whether it is good enough."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from automl.domain.events import FinalFitFinished, FitSource, FittedMember
from automl.domain.study import Run
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Trial
from automl.errors import DamagedDataError, NotFoundError, StorageError
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext
from automl.runs.continuation import published_members
from automl.runs.training import TrialTrainer, lineage_of
from automl.runs.trial_files import load_model
from automl.tracks.track import Checkpoint, Fitter, Member, Refit, Refitted

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """Start of the fit of one member.

    Attributes:
        trial: whose candidate is fitted.
        incumbent: the model that is published unless the fit is as good.
        epochs: for how many the incumbent was trained.
    """

    trial: Trial
    incumbent: Member
    epochs: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one member's fit.

    Attributes:
        stop: becomes set when the process is asked to stop.
        end: when the fit must end.
    """

    stop: StopSignal
    end: datetime

    @classmethod
    def of(cls, context: StepContext, stop: StopSignal, end: datetime, fits: int) -> Limits:
        """Return the limits of the next fit.

        Args:
            context: the step's context.
            stop: becomes set when the process is asked to stop.
            end: when all fits must have ended.
            fits: how many are left; each gets an equal part of the time.
        """
        if fits == 1:
            return cls(stop, end)
        now = context.clock.now()
        return cls(stop, now + (end - now) / fits)

    def reason(self, now: datetime) -> StopReason | None:
        """Return why the fit must end now, or None."""
        if self.stop.is_set():
            return StopReason.SIGNAL
        return StopReason.DEADLINE if now >= self.end else None


def starts_of(context: StepContext, run: Run, trainer: TrialTrainer) -> list[Start]:
    """Return what is fitted: the winner, and what the published model blends with it.

    Args:
        context: the step's context.
        run: the run, whose winner is chosen.
        trainer: the run's, which knows its snapshot.

    Raises:
        SearchError: the version that is continued is gone.
    """
    study = context.record.study
    if run.continues is not None:
        origin = study.fitted(run.continues)
        members = published_members(context, run.continues)
        assert origin is not None
        assert origin.final_fit is not None
        trials = [study.trials[fitted.trial] for fitted in origin.final_fit.members]
        return [
            Start(trial, member, origin.final_fit.epochs)
            for trial, member in zip(trials, members, strict=True)
        ]
    assert run.winner is not None
    fitter, details = trainer.fitter, trainer.details
    found = [_own(context, fitter, study.trials[run.winner], details, run.runner_up)]
    return found + [_own(context, fitter, study.trials[n], details) for n in run.blended]


def _own(
    context: StepContext,
    fitter: Fitter,
    trial: Trial,
    details: Mapping[str, Any],
    runner_up: int | None = None,
) -> Start:
    """Return a trial with its own model; the runner-up with its one if that cannot be read."""
    assert trial.candidate is not None
    try:
        key = str(trial.measurement.weights)
        member = Member(trial.candidate, load_model(context, trial), details, key=key)
        fitter.losses(member)  # it can be read
    except (NotFoundError, DamagedDataError) as error:
        if runner_up is None:
            raise
        log.warning(
            "the weights of trial %d are lost, trial %d takes its place: %s",
            trial.number, runner_up, error,
        )  # fmt: skip
        return _own(context, fitter, context.record.study.trials[runner_up], details)
    return Start(trial, member, trial.measurement.epochs)


def fit_member(
    context: StepContext, run: Run, fitter: Fitter, start: Start, limits: Limits
) -> Refitted:
    """Return the fit of one member, or its incumbent with the reason why that is published.

    A step that is run again continues from its checkpoint, within the same time limit.
    """
    keys, number = context.keys.run(context.run), start.trial.number
    key = keys.final_fit(None if number == run.winner else number)
    seed = (context.spec.search.seed, number, 1)
    job = Refit(
        lineage=lineage_of(context.record.study, start.trial),
        incumbent=start.incumbent,
        is_continued=run.continues is not None,
        wants_fresh=context.spec.final_fit.retrain,
        # another order than in the fit before
        seed=seed if run.continues is None else (*seed, run.continues),
        checkpoints=_checkpoints(context, key),
        limit_s=context.spec.final_fit.time_limit.total_seconds(),
        left_s=(limits.end - context.clock.now()) / timedelta(seconds=1),
    )
    fit = fitter.refit(job, FitHooks(context, limits, "final fit", key))
    if fit.stopped is StopReason.SIGNAL:
        raise StorageError("The final fit was asked to stop.", "run the step again")
    return _better(fitter, start, fit)


@dataclass(frozen=True, slots=True)
class FitHooks:
    """Time limit and checkpoints of a fit of the winner; see `Hooks`.

    Attributes:
        context: of the run.
        limits: of the fit.
        what: it is, for the log.
        key: of its checkpoint; None for a short fit, which keeps none.
    """

    context: StepContext
    limits: Limits
    what: str
    key: str | None

    def stop(self) -> StopReason | None:
        """Return why the fit must end now, or None."""
        return self.limits.reason(self.context.clock.now())

    def resumed(self, curve: Sequence[CurvePoint]) -> None:
        """Note nothing: the log has the rounds of earlier attempts."""
        return

    def reached(self, point: CurvePoint) -> StopReason | None:
        """Tell of a complete round."""
        log.info("%s, epoch %d: training loss %s", self.what, point.epoch + 1, point.train_loss)
        return None

    def plan(self, first: CurvePoint) -> int | None:
        """Return None: all rounds are trained."""
        return None

    def save(self, position: int, checkpoint: bytes) -> None:
        """Store a checkpoint, if the fit keeps any."""
        if self.key is not None:
            self.context.store.put(self.key, checkpoint)


def _checkpoints(context: StepContext, key: str) -> Iterator[Checkpoint]:
    try:
        yield Checkpoint(key, context.store.get(key).data)
    except NotFoundError:
        return


def _better(fitter: Fitter, start: Start, fit: Refitted) -> Refitted:
    """Return the fit, or the incumbent with the reason why the fit is not published."""
    reasons = [fit.note] if fit.note else []
    if fit.member is not None:
        worse = _worse_than(fitter, start.incumbent, fit.member)
        if not worse:
            return fit
        reasons.append(worse)
    note = "; ".join(reasons)
    log.warning("the incumbent's weights are published: %s", note)
    return Refitted(start.incumbent, FitSource.INCUMBENT, start.epochs, note)


def _worse_than(fitter: Fitter, incumbent: Member, fitted: Member) -> str:
    """Return why a fit is worse than the incumbent, or "".

    The losses of the same calibration rows are compared. Of fewer than two rows the difference has
    no standard error: then the fit counts as good enough.
    """
    losses = fitter.losses(fitted)
    if len(losses) < 2:
        return ""
    difference = losses - fitter.losses(incumbent)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / len(difference) ** 0.5
    if not np.isfinite(mean):
        return "its loss on the calibration rows is not finite"
    if mean <= error:
        return ""
    return f"its loss on the calibration rows is worse by {mean:.4f} ± {error:.4f}"


def stored_fits(
    context: StepContext, starts: Sequence[Start], fits: Sequence[Refitted]
) -> FinalFitFinished:
    """Store the members' models, and return the event that tells of them."""
    keys = context.keys.run(context.run)
    members = []
    for place, (start, fit) in enumerate(zip(starts, fits, strict=True)):
        assert fit.member is not None
        key = keys.member(place)
        context.store.put(key, fit.member.model)
        weight = 1.0 / len(fits)
        details = dict(fit.member.details)
        members.append(
            FittedMember(trial=start.trial.number, model=key, weight=weight, details=details)
        )
    return FinalFitFinished(
        at=context.clock.now(),
        run=context.run,
        members=tuple(members),
        source=fits[0].source,
        epochs=fits[0].epochs,
        note="; ".join(dict.fromkeys(fit.note for fit in fits if fit.note)),
    )
