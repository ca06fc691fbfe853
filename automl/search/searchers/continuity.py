"""The first trials on a changed dataset: the best of the nights before are measured again."""

from __future__ import annotations

from automl.domain.trial import Trial
from automl.search.history import History
from automl.search.searcher import Suggestion
from automl.search.space import SearchSpace, origin
from automl.search.strategies import REPEAT

REPEATS = 3


def next_repeat(history: History, space: SearchSpace) -> Suggestion | None:
    """Return the best candidate of the snapshot before that this one has not seen, or None.

    At most `REPEATS` of those that the space still holds are measured again. They start from their
    own weights.

    Args:
        history: the comparable trials.
        space: a dataset with other classes or inputs of another size has another space.
    """
    if not history.elsewhere:
        return None
    latest = history.elsewhere[-1].snapshot  # losses of different snapshots do not compare
    able = [
        trial
        for trial in history.elsewhere
        if trial.snapshot == latest
        and trial.can_win
        and trial.candidate
        and space.contains(trial.candidate)
    ]
    best: dict[str, Trial] = {}
    for trial in sorted(able, key=_rank):
        best.setdefault(origin(trial).identity, trial)
    for identity, trial in list(best.items())[:REPEATS]:
        if identity not in history.identities:
            return Suggestion(origin(trial), REPEAT, repeats=trial.number)
    return None


def _rank(trial: Trial) -> tuple[float, int]:
    assert trial.loss is not None
    return trial.loss, trial.number
