"""A trial's way back to the seed that it descends from."""

from __future__ import annotations

from typing import Any

from automl.domain.study import lineage
from automl.domain.trial import Outcome, Trial
from automl.views.document import Document, Row
from automl.views.library import Library, find_trial


class Ancestor(Row):
    """A trial of a lineage.

    Attributes:
        trial: its number.
        strategy: who proposed its candidate.
        outcome: how it ended; None while it has not.
        score: the objective, in its natural orientation.
        moves: what leads to its candidate from that of the next one.
    """

    trial: int
    strategy: str
    outcome: Outcome | None
    score: float | None
    moves: tuple[dict[str, Any], ...]


class Lineage(Document):
    """A trial, its parent, and so on up to the seed."""

    study: str
    trial: int
    ancestors: tuple[Ancestor, ...]


def trace_lineage(library: Library, name: str, number: int) -> Lineage:
    """Return what a trial descends from.

    Raises:
        ConfigError: there is no such trial.
    """
    study = library.study(name)
    family = lineage(study, find_trial(study, name, number))
    return Lineage(study=name, trial=number, ancestors=tuple(map(_ancestor, family)))


def _ancestor(trial: Trial) -> Ancestor:
    return Ancestor(
        trial=trial.number,
        strategy=trial.strategy,
        outcome=trial.outcome,
        score=trial.measurement.score,
        moves=() if trial.candidate is None else trial.candidate.moves,
    )
