"""A search that is under way, at a glance."""

from __future__ import annotations

from datetime import datetime

from automl.domain.ranking import ranked
from automl.domain.study import Study
from automl.views.document import Row
from automl.views.leaderboard import TrialRow, trial_row

_SHOWN = 8  # of the best trials


class Standing(Row):
    """Standing of the search of a run.

    Attributes:
        left_s: seconds until its deadline, 0 after it.
        outcomes: how many trials have reached their outcome in it.
        best: a few of the trials that compare within it, best first.
    """

    left_s: float
    outcomes: int
    best: tuple[TrialRow, ...]


def standing(study: Study, name: str, now: datetime) -> Standing | None:
    """Return where the search of the run called `name` stands; None before it is opened.

    Args:
        study: the study.
        name: of the run.
        now: the present time.
    """
    run = study.run(name)
    if run is None:
        return None
    best = ranked(study.comparable(run))[:_SHOWN]
    return Standing(
        left_s=max(0.0, (run.deadline - now).total_seconds()),
        outcomes=run.outcomes,
        best=tuple(trial_row(trial, rank) for rank, trial in enumerate(best, 1)),
    )
