"""Runs of a study as its log tells them, without trainings."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from automl.domain.events import (
    Event,
    RunReopened,
    RunState,
    SearchEnd,
    SearchEnded,
    TrialFinished,
    WinnerChosen,
)
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.study import Run, Study
from automl.domain.trial import Measurement, Outcome
from automl.errors import AutoMLError
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.runs.trials import TrialSource
from automl.steps.dispatch import run_named_step
from automl.steps.study_file import study_spec
from automl.tracks.image.space import NetworkMorphismSpace

LATER_STEPS = ("run_worker", "choose", "final_fit", "export", "evaluate", "promote")
FAILED, ABANDONED = RunState.FAILED, RunState.ABANDONED
OWN, FORM = "airflow:automl_digits", "airflow:automl_search:ann"
DOCUMENT: dict[str, Any] = {
    "name": "digits",
    "task": "image_classification",
    "data": {"source": "/absent/rows.npz"},
    "search": {"time_limit": "10m", "workers": 1, "max_trials": 3},
}


def spec_with(**sections: Mapping[str, Any]) -> StudySpec:
    """Return the study's specification with other values in some sections."""
    merged = {key: DOCUMENT.get(key, {}) | dict(value) for key, value in sections.items()}
    return study_spec(DOCUMENT | merged)


def context_of(
    home: Path, run: str, spec: StudySpec | None = None, origin: str = "test"
) -> StepContext:
    """Return the context of a step of a run, which need not be open."""
    context = StepContext.open(Settings(str(home)), spec or spec_with(), run, origin)
    context.record.refresh()
    return context


def opened(
    home: Path, run: str, spec: StudySpec | None = None, origin: str = "test"
) -> StepContext:
    """Return the context of a run that has been opened and whose lease is free again."""
    context = waiting(home, run, spec, origin)
    RunLease(context).release()
    return context


def waiting(
    home: Path, run: str, spec: StudySpec | None = None, origin: str = "test"
) -> StepContext:
    """Return the context of a run that has been opened and whose next step has not come yet."""
    context = context_of(home, run, spec, origin)
    with RunLease(context):
        opening.open_run(context, "snapshot")
    return context


def call(step: str, run: str, **more: Any) -> Any:
    """Return what a step of a run returns."""
    return run_named_step(step, {"spec": DOCUMENT, "run": run, "worker": 0, **more})


def append(context: StepContext, *events: Event) -> Study:
    """Add events to the study's log as they are."""
    version = context.record.refresh().version
    context.record.log.append(events, expected_version=version)
    return context.record.refresh()


def run_in(context: StepContext, name: str) -> Run:
    """Return a run as the log tells it now."""
    run = context.record.refresh().run(name)
    assert run is not None
    return run


def searched(context: StepContext, *, is_chosen: bool = False) -> StepContext:
    """Let the run have a completed trial and the end of its search, and perhaps its winner."""
    source = TrialSource(context, f"{context.run}/0", lambda *_: NetworkMorphismSpace(8, 10))
    claim = source.take()
    assert claim is not None
    now, run = context.clock.now(), context.run
    measured = Measurement(score=0.9, error=0.1, loss=-0.9, weights="key")
    trial, attempt = claim.trial.number, claim.trial.attempt
    done = TrialFinished(
        at=now, n=trial, attempt=attempt, run=run, outcome=Outcome.COMPLETED, measurement=measured
    )
    append(context, done, SearchEnded(at=now, run=run, reason=SearchEnd.DEADLINE))
    if is_chosen:
        append(context, WinnerChosen(at=now, run=run, trial=trial, loss=-0.9))
    return context


def closed(context: StepContext, state: RunState) -> StepContext:
    """Close the run as failed, or as another does that takes over and fails."""
    if state is FAILED:
        opening.fail_run(context, "the store was away")
    else:
        later = opened(Path(context.settings.home), "later", origin=context.origin)
        opening.fail_run(later, "over")
    return context


def call_again(step: str, origin: str = OWN, **more: Any) -> Any:
    """Call a step of run one; what it has not got it may miss."""
    with suppress(AutoMLError):
        return call(step, "one", origin=origin, snapshot="snapshot", **more)


def reopenings(context: StepContext) -> list[RunReopened]:
    """Return all events of the study that open a run again."""
    return [event for _, event in context.record.log.read() if isinstance(event, RunReopened)]
