"""A trial's learning curve."""

from __future__ import annotations

from typing import Any

from automl.domain.training import CurvePoint
from automl.domain.trial import Trial
from automl.runs.curves import read_curve
from automl.storage.objects import ObjectStore
from automl.views.document import Document
from automl.views.library import Library, find_trial


class Curve(Document):
    """The learning curve of a trial's last attempt.

    Attributes:
        study: the study's name.
        trial: the trial's number.
        attempt: the attempt, 0 before the first.
        curve: a point per epoch, oldest first; empty before the first epoch.
    """

    study: str
    trial: int
    attempt: int
    curve: tuple[dict[str, Any], ...]


def show_curve(library: Library, name: str, number: int) -> Curve:
    """Return the learning curve of a trial.

    Raises:
        ConfigError: there is no such trial.
        DamagedDataError: the curve is not what was written.
    """
    trial = find_trial(library.study(name), name, number)
    points = curve_points(library.store, name, trial)
    return Curve(study=name, trial=number, attempt=trial.attempt, curve=points)


def curve_points(store: ObjectStore, name: str, trial: Trial) -> tuple[dict[str, Any], ...]:
    """Return the points of the learning curve of a trial's last attempt.

    Raises:
        DamagedDataError: the curve is not what was written.
    """
    return tuple(_row(point) for point in read_curve(store, name, trial))


def _row(point: CurvePoint) -> dict[str, Any]:
    """Return a point with the track's further figures among the others."""
    row = point.to_json()
    return row | dict(row.pop("details"))
