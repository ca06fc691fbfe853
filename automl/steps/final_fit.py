"""The step `final_fit`: the model that is published."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache

from automl.domain.documents import JsonValue
from automl.domain.events import FinalFitFinished
from automl.domain.facts import OriginKind
from automl.domain.study import Run, Study
from automl.errors import SearchError
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext
from automl.runs.cross_fit import cross_fit
from automl.runs.refit import Limits, fit_member, starts_of, stored_fits
from automl.runs.training import TrialTrainer
from automl.steps.call import StepCall


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


def final_fit(context: StepContext, stop: StopSignal) -> FinalFit:
    """Fit the winner on training and judging rows and store the model to publish.

    In a part of the time that is left, the winner is then cross-fitted, for the audit of the data.

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
    if run.winner is None:
        raise SearchError(f"Run {run.name} has no winner yet.", "run the step choose first")
    load = cache(lambda: TrialTrainer.load(context, run))
    limits = Limits(stop, _end(context, run))
    event = run.final_fit or _fitted(context, run, load(), limits)
    cross_fit(context, lambda: load().fitter, limits)
    return FinalFit.of(event)


def _fitted(
    context: StepContext, run: Run, trainer: TrialTrainer, limits: Limits
) -> FinalFitFinished:
    """Fit the members of the model, and record what came of it."""
    starts = starts_of(context, run, trainer)
    fits = []
    for place, start in enumerate(starts):
        own = Limits.of(context, limits.stop, limits.end, len(starts) - place)
        fits.append(fit_member(context, run, trainer.fitter, start, own))
    event = stored_fits(context, starts, fits)

    def decide(study: Study) -> list[FinalFitFinished]:
        return [] if context.run_in(study).final_fit is not None else [event]

    context.record.commit(decide)
    return event


def _end(context: StepContext, run: Run) -> datetime:
    """Return when the fit must end."""
    assert run.chosen_at is not None
    # an estimator's fit is called when its user likes, maybe hours after the search
    is_called = run.origin.kind is OriginKind.PYTHON
    began = max(run.chosen_at, run.reopened_at or run.chosen_at)
    begin = context.clock.now() if is_called else began
    return begin + context.spec.final_fit.time_limit


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the document of what was fitted."""
    return final_fit(context, call.stop).to_json()
