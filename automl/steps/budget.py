"""How long one training may take, so that what its search has time for is well spent."""

from __future__ import annotations

from automl.domain.specification import SearchSection
from automl.domain.study import Run

_LARGEST_SHARE = 0.4  # of the time limit, for one trial
_TRIALS = 6  # so many full trainings fit into a search, all workers together
_MARGIN_S = 3.0  # from the end of a training to the deadline: measuring and recording it
_SHORTEST_S = 1.0


def full_seconds(limit_s: float, search: SearchSection) -> float | None:
    """Return how long a training takes that is neither stopped nor shortened; None for any time.

    A search that ends after a number of trials gives each of them all its epochs: only then are two
    runs of it alike on any machine. Others have their time to divide: among few trainings, since a
    good recipe that is trained long beats many that are not, and none may take most of it.

    Args:
        limit_s: seconds that the search may take.
        search: how it searches.
    """
    if search.max_trials is not None:
        return None
    return min(_LARGEST_SHARE * limit_s, limit_s * search.workers / _TRIALS)


def trial_seconds(
    run: Run, search: SearchSection, left_s: float, spent_s: float = 0.0
) -> float | None:
    """Return how long a training may take over all its attempts; None for any time.

    Args:
        run: the run.
        search: how it searches.
        left_s: seconds until its deadline; the last training is sized to what is left, so that its
            learning rate comes down in time.
        spent_s: seconds that the attempts before took.
    """
    full_s = full_seconds((run.deadline - run.opened_at).total_seconds(), search)
    return None if full_s is None else max(_SHORTEST_S, min(full_s, spent_s + left_s - _MARGIN_S))
