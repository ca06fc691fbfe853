"""Checks of the studies' logs: readable, whole, and no run open that nobody works on."""

from __future__ import annotations

from automl.doctor.findings import STORAGE, Finding, failure, fine, trouble
from automl.domain.invariants import violations
from automl.domain.study import replay
from automl.errors import AutoMLError
from automl.runs.run_lease import is_run_alive
from automl.storage.home import Home


def examine_studies(home: Home) -> list[Finding]:
    """Return one finding for each study of the home."""
    try:
        names = home.study_names()
    except AutoMLError as error:
        return [failure("studies", error)]
    return [_examine(home, name) for name in names]


def _examine(home: Home, name: str) -> Finding:
    check = f"study {name}"
    try:
        events = home.study_log(name).read()
        study = replay(events)
        is_forsaken = study.open_run is not None and not is_run_alive(home, name)
    except AutoMLError as error:
        return failure(check, error)
    if wrong := violations(events):
        return trouble(
            check,
            f"its log contradicts itself in {len(wrong)} places, first: {wrong[0]}",
            "restore the log from a backup of the home; see docs/runbook.md",
            STORAGE,
        )
    if study.open_run is not None and is_forsaken:
        return trouble(
            check,
            f"run {study.open_run.name} is open, but its processes give no sign of life",
            "start a run of the study: it closes this one as abandoned and continues its trials",
            STORAGE,
        )
    state = "no run is open" if study.open_run is None else f"run {study.open_run.name} is open"
    return fine(
        check, f"{len(study.runs)} runs, {len(study.trials)} trials, {state}; its log is whole"
    )
