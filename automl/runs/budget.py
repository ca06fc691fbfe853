"""How long one training may take, so that what its search has time for is well spent."""

from __future__ import annotations

from automl.domain.specification import SearchSection
from automl.domain.study import Run
from automl.runs.memory import Facts

TRIAL_MS = "trial_ms"  # the fact that says how long a training takes that is not stopped
PRETRAINED_MS = "pretrained_ms"  # likewise of one that goes back to the pretrained seed, if less
ENOUGH_EPOCHS = 60  # after so many, small data have taught fresh weights most of what they will
ENOUGH_PRETRAINED_EPOCHS = 10  # likewise pretrained ones; after them, a new cycle teaches more

_LARGEST_SHARE = 0.4  # of the time limit, for one trial
_TRIALS = 6  # so many full trainings fit into a search, all workers together
_HURRIED_SHARE = 0.8  # of the time limit, for one trial of a hurried search
_HURRIED_TRIALS = 2.5  # likewise, all workers together
_MARGIN_S = 3.0  # from the end of a training to the deadline: measuring and recording it
_SHORTEST_S = 1.0


def full_seconds(limit_s: float, search: SearchSection, enough_s: float) -> float | None:
    """Return how long a training takes that is neither stopped nor shortened; None for any time.

    A search that ends after a number of trials gives each of them all its epochs: only then are two
    runs of it alike on any machine. Others have their time to divide: among few trainings, since a
    good recipe that is trained long beats many that are not, and none may take most of it. Where
    even such a share is short of what a training needs, the search is hurried: it trains two seeds
    for as long as it can, since weights that were trained in one cycle beat those of several, and
    what is left is for their children.

    Args:
        limit_s: seconds that the search may take.
        search: how it searches.
        enough_s: seconds that a training of a seed needs.
    """
    share_s = _share_seconds(limit_s, search)
    if share_s is None or enough_s <= share_s:
        return share_s
    return min(enough_s, _divided(limit_s, search, _HURRIED_SHARE, _HURRIED_TRIALS))


def is_hurried(search: SearchSection, facts: Facts) -> bool:
    """Whether trainings take more than their share of a search, and few of them fit into it.

    Args:
        search: how it searches.
        facts: what `run_opened` records of the search space.
    """
    share_s = _share_seconds(search.time_limit.total_seconds(), search)
    return share_s is not None and int(facts.get(TRIAL_MS, 0)) > round(1000 * share_s)


def trial_seconds(
    run: Run,
    search: SearchSection,
    left_s: float,
    spent_s: float = 0.0,
    *,
    is_pretrained: bool = False,
) -> float | None:
    """Return how long a training may take over all its attempts; None for any time.

    Args:
        run: the run; those of older versions recorded no time of a training.
        search: how it searches.
        left_s: seconds until its deadline; the last training is sized to what is left, so that its
            learning rate comes down in time.
        spent_s: seconds that the attempts before took.
        is_pretrained: whether the network is the pretrained seed or descends from it.
    """
    full_s = _share_seconds((run.deadline - run.opened_at).total_seconds(), search)
    if full_s is None:
        return None
    facts: Facts = run.space.recorded if run.space else {}
    trial_ms = None if run.space is None else run.space.trial_ms
    full_s = (round(1000 * full_s) if trial_ms is None else trial_ms) / 1000
    if is_pretrained and PRETRAINED_MS in facts:
        full_s = int(facts[PRETRAINED_MS]) / 1000
    return max(_SHORTEST_S, min(full_s, spent_s + left_s - _MARGIN_S))


def _share_seconds(limit_s: float, search: SearchSection) -> float | None:
    if search.max_trials is not None:
        return None
    return _divided(limit_s, search, _LARGEST_SHARE, _TRIALS)


def _divided(limit_s: float, search: SearchSection, largest: float, trials: float) -> float:
    """Return a part of all workers' time, at most a part of the limit."""
    return min(largest * limit_s, limit_s * search.workers / trials)
