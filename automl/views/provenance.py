"""The making of published weights, for people and programs."""

from __future__ import annotations

from automl.domain.events import FitSource
from automl.domain.study import Run, Study, lineage
from automl.views.document import Row


class Weights(Row):
    """Making of a version's weights by the final fit of its run.

    Attributes:
        source: whose they are.
        trial: the trial whose candidate they are of.
        continues: the version that the run continues, or None.
        epochs: epochs that led to them.
        note: why they are not what was planned, or "".
        summary: all of it for people.
    """

    source: FitSource
    trial: int
    continues: int | None
    epochs: int
    note: str
    summary: str


class MadeVersion(Weights):
    """A published version, and how its weights were made."""

    version: int


def weights_of(run: Run) -> Weights:
    """Return how the final fit of a run made its weights."""
    fit = run.final_fit
    assert fit is not None
    return Weights(
        source=fit.source,
        trial=fit.members[0].trial,
        continues=run.continues,
        epochs=fit.epochs,
        note=fit.note,
        summary=weights_summary(run),
    )


def weights_summary(run: Run) -> str:
    """Return in words how the final fit of a run made its weights."""
    fit = run.final_fit
    assert fit is not None
    start = f"trial {fit.members[0].trial}" if run.continues is None else f"version {run.continues}"
    if fit.source is FitSource.INCUMBENT:
        return f"those of {start}: {fit.note}"
    what = "retrained" if fit.source is FitSource.RETRAINED else f"continued from {start}"
    aside = f" ({fit.note})" if fit.note else ""
    return f"{what} for {fit.epochs} epochs{aside}"


def lineage_summary(study: Study, run: Run) -> str:
    """Return what the weights of a run come from: versions back to a search, then its trials."""
    fit = run.final_fit
    assert fit is not None
    versions, place = [], run
    while place.continues is not None:
        versions.append(f"version {place.continues}")
        before = study.fitted(place.continues)
        if before is None:
            break
        place = before
    trials = [
        f"trial {trial.number}" for trial in lineage(study, study.trials[fit.members[0].trial])
    ]
    return " ← ".join([*versions, *trials])


def versions_of(study: Study, number: int) -> tuple[MadeVersion, ...]:
    """Return the published versions that have a trial's candidate, and how they were made."""
    return tuple(
        MadeVersion(**dict(weights_of(run)), version=run.version)
        for run in study.runs
        if run.published and run.version is not None
        if run.final_fit is not None and number in run.final_fit.trials
    )
