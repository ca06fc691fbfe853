"""Regularised evolution (Real et al., AAAI 2019, arXiv:1802.01548, algorithm 1)."""

from __future__ import annotations

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.trial import Trial
from automl.errors import SearchSpaceExhaustedError
from automl.search.history import History
from automl.search.searcher import Suggestion
from automl.search.searchers.drawing import MAX_DRAWS, draw_new
from automl.search.searchers.random import RandomSearcher
from automl.search.space import SearchSpace, origin


class RegularizedEvolution:
    """Mutates the best of a few trials that are drawn from the youngest.

    A trial leaves the population when it is too old, however good it is. Until the population is
    full, the search is random; the suggestions say so.

    Args:
        space: the candidates there are.
        population: how many of the trials that ended last may have children.
        sample: how many of them compete to be the next parent, at least 1.
    """

    name = "evolution"

    def __init__(self, space: SearchSpace, population: int = 20, sample: int = 5) -> None:
        assert population >= 1
        assert sample >= 1
        self._space = space
        self._random = RandomSearcher(space)
        self._population = population
        self._sample = sample

    def propose(self, history: History, rng: np.random.Generator) -> Suggestion:
        """Return the next candidate, never one that the history holds.

        Raises:
            SearchSpaceExhaustedError: a hundred draws brought nothing new.
        """
        population = self.population(history)
        if len(population) < self._population:
            return self._random.propose(history, rng)

        def child() -> Candidate:
            return self._space.mutate(origin(self._tournament(population, rng)), rng)

        candidate = draw_new(child, history)
        if candidate is not None:
            return Suggestion(candidate, self.name)
        raise SearchSpaceExhaustedError(
            f"{MAX_DRAWS} mutations of the {len(population)} youngest trials brought no candidate "
            f"that is not among the {len(history.identities)} known.",
            "end the search here, or raise the limits of the search space",
        )

    def population(self, history: History) -> list[Trial]:
        """Return the trials that may have children: the last that measured a loss, oldest first."""
        measured = (trial for trial in reversed(history.finished) if trial.loss is not None)
        youngest = [trial for trial, _ in zip(measured, range(self._population), strict=False)]
        return youngest[::-1]

    def _tournament(self, population: list[Trial], rng: np.random.Generator) -> Trial:
        """Return the best of a sample; a trial may be drawn twice, as in the paper."""
        drawn = rng.integers(len(population), size=self._sample)
        return min((population[int(i)] for i in drawn), key=_loss)


def _loss(trial: Trial) -> float:
    assert trial.loss is not None
    return trial.loss
