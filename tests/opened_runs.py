"""Runs of a study as its log tells them, without trainings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automl.domain.events import Event
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.domain.study import Run, Study
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.steps.dispatch import run_named_step
from automl.steps.study_file import study_spec

LATER_STEPS = ("run_worker", "choose", "final_fit", "export", "evaluate", "promote")
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
