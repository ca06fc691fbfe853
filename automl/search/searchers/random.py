"""Random search: the baseline of every other searcher."""

from __future__ import annotations

import numpy as np

from automl.errors import SearchSpaceExhaustedError
from automl.search.history import History
from automl.search.searcher import Suggestion
from automl.search.searchers.drawing import MAX_DRAWS, draw_new, next_seed
from automl.search.space import SearchSpace


class RandomSearcher:
    """Proposes the seeds, then what the space samples.

    Args:
        space: the candidates there are.
    """

    name = "random"

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def propose(self, history: History, rng: np.random.Generator) -> Suggestion:
        """Return the next candidate, never one that the history holds.

        Raises:
            SearchSpaceExhaustedError: a hundred draws brought nothing new.
        """
        seed = next_seed(self._space, history)
        if seed is not None:
            return Suggestion(seed, self.name)
        suggestion = self.sample(history, rng)
        if suggestion is None:
            raise exhausted(history)
        return suggestion

    def sample(self, history: History, rng: np.random.Generator) -> Suggestion | None:
        """Return a random candidate, whether or not the seeds have been evaluated.

        None means that a hundred draws brought nothing new.
        """
        candidate = draw_new(lambda: self._space.sample(history.parents, rng), history)
        return None if candidate is None else Suggestion(candidate, self.name)


def exhausted(history: History) -> SearchSpaceExhaustedError:
    """Return the error of a searcher that finds nothing new."""
    return SearchSpaceExhaustedError(
        f"{MAX_DRAWS} draws brought no candidate that is not among the "
        f"{len(history.identities)} known.",
        "end the search here, or raise the limits of the search space",
    )
