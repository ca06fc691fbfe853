"""Drawing of candidates, as all searchers do it: seeds first, nothing twice."""

from __future__ import annotations

from collections.abc import Callable

from automl.domain.candidate import Candidate
from automl.search.history import History
from automl.search.space import SearchSpace

MAX_DRAWS = 100


def next_seed(space: SearchSpace, history: History) -> Candidate | None:
    """Return the first seed that the history's snapshot has not seen, or None."""
    return next((seed for seed in space.seeds() if seed.identity not in history.identities), None)


def draw_new(draw: Callable[[], Candidate], history: History) -> Candidate | None:
    """Return the first drawn candidate that is new; None if a hundred draws bring none."""
    for _ in range(MAX_DRAWS):
        candidate = draw()
        if candidate.identity not in history.identities:
            return candidate
    return None
