"""The step `final_fit`: the model that is published."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from automl.domain.documents import JsonValue
from automl.domain.events import FinalFitFinished, FitSource, FittedMember
from automl.domain.facts import OriginKind
from automl.domain.study import Run, Study
from automl.domain.training import CurvePoint, StopReason
from automl.domain.trial import Trial
from automl.errors import DamagedDataError, NotFoundError, SearchError, StorageError
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext
from automl.runs.continuation import published_members
from automl.runs.training import TrialTrainer, lineage_of
from automl.runs.trial_files import load_model
from automl.steps.call import StepCall
from automl.tracks.track import Checkpoint, Fitter, Member, Refit, Refitted

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FinalFit:
    """Result of the final fit."""

    trial: int
    source: str
    epochs: int
    note: str

    @classmethod
    def of(cls, event: FinalFitFinished) -> FinalFit:
        """Return what an event tells."""
        return cls(event.members[0].trial, event.source.value, event.epochs, event.note)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the step's result."""
        return {
            "trial": self.trial, "source": self.source, "epochs": self.epochs, "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Start:
    """Start of the fit of one member.

    Attributes:
        trial: whose candidate is fitted.
        incumbent: the model that is published unless the fit is as good.
        epochs: for how many the incumbent was trained.
    """

    trial: Trial
    incumbent: Member
    epochs: int


def final_fit(context: StepContext, stop: StopSignal) -> FinalFit:
    """Fit the winner on training and judging rows and store the model to publish.

    Where the winner's own model is lost, the runner-up takes its place: without it there would be
    nothing to compare the fit with and to fall back to. Where the published model blends several
    trials, each is fitted.

    The incumbent is published instead where the fit fails, comes to nothing in its time, or is
    worse on the calibration rows, which neither has seen, by more than the paired standard error.
    The incumbent is the winner's model, or that of the version that the run continues.

    Raises:
        SearchError: no winner has been chosen, or the version that is continued is gone.
        StorageError: the process was asked to stop.
    """
    run = context.opened_run()
    if run.final_fit is not None:
        return FinalFit.of(run.final_fit)
    if run.winner is None:
        raise SearchError(f"Run {run.name} has no winner yet.", "run the step choose first")
    trainer = TrialTrainer.load(context, run)
    fitter, end = trainer.fitter, _end(context, run)
    starts = _starts(context, run, trainer)
    fits = [
        _fitted(context, run, fitter, start, _Limits.of(context, stop, end, len(starts) - place))
        for place, start in enumerate(starts)
    ]
    event = _stored(context, starts, fits)

    def decide(study: Study) -> list[FinalFitFinished]:
        return [] if context.run_in(study).final_fit is not None else [event]

    context.record.commit(decide)
    return FinalFit.of(event)


def _end(context: StepContext, run: Run) -> datetime:
    """Return when the fit must end."""
    assert run.chosen_at is not None
    # an estimator's fit is called when its user likes, maybe hours after the search
    is_called = run.origin.kind is OriginKind.PYTHON
    begin = context.clock.now() if is_called else run.chosen_at
    return begin + context.spec.final_fit.time_limit


@dataclass(frozen=True, slots=True)
class _Limits:
    """Limits of one member's fit.

    Attributes:
        stop: becomes set when the process is asked to stop.
        end: when the fit must end.
    """

    stop: StopSignal
    end: datetime

    @classmethod
    def of(cls, context: StepContext, stop: StopSignal, end: datetime, fits: int) -> _Limits:
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


def _starts(context: StepContext, run: Run, trainer: TrialTrainer) -> list[_Start]:
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
            _Start(trial, member, origin.final_fit.epochs)
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
) -> _Start:
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
    return _Start(trial, member, trial.measurement.epochs)


def _fitted(
    context: StepContext, run: Run, fitter: Fitter, start: _Start, limits: _Limits
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
    fit = fitter.refit(job, _FitHooks(context, limits, key))
    if fit.stopped is StopReason.SIGNAL:
        raise StorageError("The final fit was asked to stop.", "run the step again")
    return _better(fitter, start, fit)


@dataclass(frozen=True, slots=True)
class _FitHooks:
    """Time limit and checkpoints of a final fit; see `Hooks`."""

    context: StepContext
    limits: _Limits
    key: str

    def stop(self) -> StopReason | None:
        if self.limits.stop.is_set():
            return StopReason.SIGNAL
        return StopReason.DEADLINE if self.context.clock.now() >= self.limits.end else None

    def resumed(self, curve: Sequence[CurvePoint]) -> None:
        return

    def reached(self, point: CurvePoint) -> StopReason | None:
        log.info("final fit, epoch %d: training loss %s", point.epoch + 1, point.train_loss)
        return None

    def plan(self, first: CurvePoint) -> int | None:
        return None

    def save(self, position: int, checkpoint: bytes) -> None:
        self.context.store.put(self.key, checkpoint)


def _checkpoints(context: StepContext, key: str) -> Iterator[Checkpoint]:
    try:
        yield Checkpoint(key, context.store.get(key).data)
    except NotFoundError:
        return


def _better(fitter: Fitter, start: _Start, fit: Refitted) -> Refitted:
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


def _stored(
    context: StepContext, starts: Sequence[_Start], fits: Sequence[Refitted]
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


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the document of what was fitted."""
    return final_fit(context, call.stop).to_json()
