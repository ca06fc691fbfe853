"""Bayesian optimisation: Auto-Keras' idea (arXiv:1806.10282), with a surrogate that holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from automl.domain.candidate import Candidate
from automl.errors import ConfigError
from automl.search.arrays import Vector
from automl.search.history import History
from automl.search.searcher import Suggestion
from automl.search.searchers.continuity import next_repeat
from automl.search.searchers.drawing import next_seed
from automl.search.searchers.random import RandomSearcher, exhausted
from automl.search.searchers.tree_search import Effort, Scores, TreeSearch
from automl.search.space import SearchSpace, origin
from automl.search.strategies import SEED
from automl.search.surrogate.acquisition import (
    Acquisition,
    confidence_bound,
    log_expected_improvement,
    log_expected_improvement_per_cost,
)
from automl.search.surrogate.surrogate import FittedSurrogate, Prediction, Surrogate


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


@dataclass(frozen=True, slots=True)
class BayesianOptions:
    """Options by which the searcher balances.

    Attributes:
        initial: candidates that are proposed before the surrogate is asked; seeds count.
        random_share: share of the later proposals that random search makes, for comparison.
        acquisitions: one of them is drawn for each proposal. The improvement per cost needs a space
            that describes what an evaluation costs.
        beta: standard deviations that the confidence bound adds.
        effort: how many candidates are looked at for one proposal.
    """

    initial: int = 6
    random_share: float = 0.05
    acquisitions: tuple[Acquisition, ...] = (
        Acquisition.LOG_EXPECTED_IMPROVEMENT,
        Acquisition.CONFIDENCE_BOUND,
    )
    beta: float = 2.0
    effort: Effort = Effort()  # noqa: RUF009 - frozen


class BayesianSearcher:
    """Proposes the seeds, then what promises most by a surrogate of the loss.

    Args:
        space: the candidates there are.
        options: how it balances.
    """

    name = "bayesian"

    def __init__(self, space: SearchSpace, options: BayesianOptions = BayesianOptions()) -> None:
        self._space, self._options = space, options
        self._random = RandomSearcher(space)
        self._surrogate = Surrogate(space)
        self._tree = TreeSearch(space, options.effort)

    def propose(self, history: History, rng: np.random.Generator) -> Suggestion:
        """Return the next candidate.

        Raises:
            ConfigError: the acquisition needs costs, which the space does not describe.
            SearchSpaceExhaustedError: nothing new was found.
        """
        repeat = next_repeat(history, self._space)
        if repeat is not None:
            return repeat
        seed = next_seed(self._space, history)
        if seed is not None:
            return Suggestion(seed, SEED)
        few = len(history.identities) < self._options.initial
        suggestion = None
        # the first candidates are those of random search with the same generator
        if not few and rng.random() >= self._options.random_share:
            suggestion = self._promising(history, rng)
        # near the end of a space, one way may still find what the other does not
        suggestion = suggestion or self._random.sample(history, rng)
        suggestion = suggestion or self._promising(history, rng)
        if suggestion is None:
            raise exhausted(history)
        return suggestion

    def _promising(self, history: History, rng: np.random.Generator) -> Suggestion | None:
        if all(trial.loss is None for trial in history.parents):
            return None
        # threads only wait for each other on matrices this small, and they reorder sums
        with _blas().limit(limits=1, user_api="blas"):
            candidate = self._search(history, rng)
        return None if candidate is None else Suggestion(candidate, self.name)

    def _search(self, history: History, rng: np.random.Generator) -> Candidate | None:
        fitted = self._surrogate.fit(history)
        which = self._options.acquisitions[int(rng.integers(len(self._options.acquisitions)))]
        samples = [
            self._space.sample(history.parents, rng) for _ in range(self._options.effort.samples)
        ]
        roots = [
            (origin(trial), -fitted.means[trial.number])
            for trial in history.parents
            if trial.number in fitted.means
        ]

        def score(candidates: Sequence[Candidate]) -> Scores:
            prediction = fitted.predict(candidates)
            bound = confidence_bound(prediction, self._options.beta)
            return Scores(bound, self._value(which, fitted, prediction, candidates))

        return self._tree.best(roots, samples, history.identities, score, rng)

    def _value(
        self,
        which: Acquisition,
        fitted: FittedSurrogate,
        prediction: Prediction,
        candidates: Sequence[Candidate],
    ) -> Vector:
        """Return the acquisition, lowered where a trial is likely to fail."""
        log_feasible = np.log(np.maximum(prediction.feasible, 1e-6))
        if which is Acquisition.LOG_EXPECTED_IMPROVEMENT:
            return log_expected_improvement(prediction, fitted.incumbent) + log_feasible
        if which is Acquisition.LOG_EXPECTED_IMPROVEMENT_PER_COST:
            spent = np.array([self._spent(candidate) for candidate in candidates])
            value = log_expected_improvement_per_cost(prediction, fitted.incumbent, spent)
            return value + log_feasible
        return confidence_bound(prediction, self._options.beta) + log_feasible

    def _spent(self, candidate: Candidate) -> float:
        spent = self._space.describe(candidate).spent
        if spent is None:
            raise ConfigError(
                f"{Acquisition.LOG_EXPECTED_IMPROVEMENT_PER_COST} needs predicted costs, and "
                f"{type(self._space).__name__} describes none.",
                "leave it out of BayesianOptions.acquisitions, or let the space's descriptions say "
                "what is spent",
            )
        return spent
