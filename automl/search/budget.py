"""Time of single trainings, so that what their search has time for is well spent."""

from __future__ import annotations

import math
from dataclasses import dataclass

from automl.domain.specification import SearchSection

_LARGEST_SHARE = 0.4  # of the time limit, for one trial
_TRIALS = 6  # so many full trainings fit into a search, all workers together
_SHORT_BUDGET_SHARE = 0.8  # of the time limit, for one trial of a short-budget search
_SHORT_BUDGET_TRIALS = 2.5  # likewise, all workers together
_MARGIN_S = 3.0  # from the end of a training to the deadline: measuring and recording it
_SHORTEST_S = 1.0


@dataclass(frozen=True, slots=True)
class TimeBudget:
    """Wall clock of one training over all its attempts.

    Attributes:
        full_s: seconds of a training that is neither stopped nor shortened; None for any time.
        left_s: seconds until the search's deadline, to which the last training is sized, so that
            its learning rate comes down in time.
    """

    full_s: float | None = None
    left_s: float = math.inf

    def seconds(self, spent_s: float = 0.0) -> float | None:
        """Return how long the training may take in all; None for any time.

        Args:
            spent_s: seconds that the attempts before took.
        """
        if self.full_s is None:
            return None
        return max(_SHORTEST_S, min(self.full_s, spent_s + self.left_s - _MARGIN_S))


def time_budget(
    limit_s: float, search: SearchSection, trial_ms: int | None, left_s: float
) -> TimeBudget:
    """Return the budget of a trial's training.

    Args:
        limit_s: seconds from the opening of the run to its deadline.
        search: how it searches.
        trial_ms: what was recorded for a training when the run was opened, or None.
        left_s: seconds until the deadline.
    """
    full_s = share_seconds(limit_s, search)
    if full_s is not None and trial_ms is not None:
        full_s = trial_ms / 1000
    return TimeBudget(full_s, left_s)


def full_seconds(limit_s: float, search: SearchSection, enough_s: float) -> float | None:
    """Return how long a training takes that is neither stopped nor shortened; None for any time.

    A search that ends after a number of trials gives each of them all its epochs: only then are two
    runs of it alike on any machine. Others have their time to divide: among few trainings, since a
    good recipe that is trained long beats many that are not, and none may take most of it. Where
    even such a share is short of what a training needs, the search has a short budget: it trains
    two seeds for as long as it can, since weights that were trained in one cycle beat those of
    several, and what is left is for their children.

    Args:
        limit_s: seconds that the search may take.
        search: how it searches.
        enough_s: seconds that a training of a seed needs.
    """
    share_s = share_seconds(limit_s, search)
    if share_s is None or enough_s <= share_s:
        return share_s
    return min(enough_s, _divided(limit_s, search, _SHORT_BUDGET_SHARE, _SHORT_BUDGET_TRIALS))


def is_short_budget(search: SearchSection, trial_ms: int | None) -> bool:
    """Return whether trainings take more than their share of a search, so that few fit into it.

    Args:
        search: how it searches.
        trial_ms: what was recorded for a training when the run was opened, or None.
    """
    share_s = share_seconds(search.time_limit.total_seconds(), search)
    return share_s is not None and (trial_ms or 0) > round(1000 * share_s)


def share_seconds(limit_s: float, search: SearchSection) -> float | None:
    """Return a training's share of a search with enough time; None where trials are counted."""
    if search.max_trials is not None:
        return None
    return _divided(limit_s, search, _LARGEST_SHARE, _TRIALS)


def _divided(limit_s: float, search: SearchSection, largest: float, trials: float) -> float:
    """Return a part of all workers' time, at most a part of the limit."""
    return min(largest * limit_s, limit_s * search.workers / trials)
