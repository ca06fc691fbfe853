"""Random search by morphism: the baseline of every other searcher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.trial import Outcome, Trial
from automl.errors import SearchSpaceExhaustedError
from automl.search.space import SearchSpace

MAX_DRAWS = 100


class RandomSearcher:
    """Proposes the seeds, then neighbours of uniformly chosen finished trials.

    Args:
        space: the candidates there are.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def propose(self, history: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        """Return the next candidate, never one that the history holds.

        Args:
            history: the comparable trials by number, failed and unfinished ones included.
            rng: the only source of randomness.

        Raises:
            SearchSpaceExhaustedError: a hundred draws brought nothing new.
        """
        known = {trial.candidate.identity for trial in history if trial.candidate is not None}
        for seed in self._space.seeds():
            if seed.identity not in known:
                return seed
        parents = [trial for trial in history if _is_parent(trial)]
        for _ in range(MAX_DRAWS):
            candidate = self._draw(parents, rng)
            if candidate.identity not in known:
                return candidate
        raise SearchSpaceExhaustedError(
            f"{MAX_DRAWS} draws brought no candidate that is not among the {len(known)} known.",
            "end the search here, or raise the limits of the search space",
        )

    def _draw(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        if parents:
            return self._space.mutate(parents[int(rng.integers(len(parents)))], rng)
        seeds = self._space.seeds()
        return self._space.vary(seeds[int(rng.integers(len(seeds)))], rng)


def _is_parent(trial: Trial) -> bool:
    return trial.candidate is not None and (trial.can_win or trial.outcome is Outcome.COMPLETED)
