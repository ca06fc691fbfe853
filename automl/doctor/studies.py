"""Checks of the studies' logs: readable, whole, and no run open that nobody works on."""

from __future__ import annotations

from automl.doctor.findings import STORAGE, Finding, failure, fine, trouble
from automl.domain.invariants import violations
from automl.domain.study import replay
from automl.errors import AutoMLError
from automl.runs.run_lease import is_waiting, run_tenure
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
        tenure = None if study.open_run is None else run_tenure(home, name)
    except AutoMLError as error:
        return failure(check, error)
    if wrong := violations(events):
        return trouble(
            check,
            f"its log contradicts itself in {len(wrong)} places, first: {wrong[0]}",
            "restore the log from a backup of the home; see docs/runbook.md",
            STORAGE,
        )
    if study.open_run is not None and tenure is None:
        return trouble(
            check,
            f"run {study.open_run.name} is open, but its processes give no sign of life",
            "start a run of the study: it closes this one as abandoned and continues its trials; "
            f"or close it with `automl abandon {name}`",
            STORAGE,
        )
    state = "no run is open"
    if study.open_run is not None and tenure is not None:
        state = f"run {study.open_run.name} is open and works"
        if is_waiting(tenure):
            since = f"{tenure.renewed_at:%Y-%m-%d %H:%M} UTC"
            state = f"run {study.open_run.name} is open and waits for its next step since {since}"
    return fine(
        check, f"{len(study.runs)} runs, {len(study.trials)} trials, {state}; its log is whole"
    )
