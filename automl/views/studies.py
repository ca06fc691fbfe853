"""All studies of a home, a row each."""

from __future__ import annotations

from automl.domain.events import RunState
from automl.domain.ranking import ranked
from automl.errors import DamagedDataError, NewerSchemaError
from automl.views.document import Document, Row
from automl.views.library import Library


class StudyRow(Row):
    """Standing of a study.

    Attributes:
        study: its name.
        runs: how many it has had.
        trials: how many it has had.
        state: of the run that is open, or else of its newest one.
        last_run: that run.
        opened_at: when that run was opened, ISO 8601.
        best_score: of the trials that compare within that run; None without any.
        champion: the version that consumers load; None before the first promotion.
        owner: who may continue it, such as `airflow:automl_digits` or `cli`; None: anybody.
    """

    study: str
    runs: int
    trials: int
    state: RunState
    last_run: str
    opened_at: str
    best_score: float | None
    champion: int | None
    owner: str | None


class UnreadableStudy(Row):
    """A study whose log or registry cannot be read, while the others can.

    Attributes:
        study: its name.
        error: what is wrong, and what to do about it.
    """

    study: str
    error: str


class Studies(Document):
    """The document of `automl studies`, by name."""

    studies: tuple[StudyRow | UnreadableStudy, ...]


def list_studies(library: Library) -> Studies:
    """Return where every study stands."""
    return Studies(studies=tuple(_row(library, name) for name in library.names()))


def _row(library: Library, name: str) -> StudyRow | UnreadableStudy:
    try:
        study, champion = library.study(name), library.champion_version(name)
    except (DamagedDataError, NewerSchemaError) as error:
        return UnreadableStudy(study=name, error=str(error))
    run = study.open_run or study.runs[-1]
    best = next(iter(ranked(study.comparable(run))), None)
    return StudyRow(
        study=name,
        runs=len(study.runs),
        trials=len(study.trials),
        state=run.state,
        last_run=run.name,
        opened_at=run.opened_at.isoformat(),
        best_score=None if best is None else best.measurement.score,
        champion=champion,
        owner=None if study.owner is None else str(study.owner),
    )
