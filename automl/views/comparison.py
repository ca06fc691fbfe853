"""A comparison of strategies, as far as a search's own trials tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from automl.domain.ranking import ranked_winners
from automl.domain.trial import Trial
from automl.search.strategies import COMMON
from automl.views.document import Row


class StrategyRow(Row):
    """Results of the trials of one strategy.

    Attributes:
        strategy: who proposed them; "random" is what random search gives.
        trials: how many of them have a score.
        best: their best score.
        drawn: the number of trials that all strategies have at least.
        expected_best: the best score that so many of them have on average, drawn at random.
    """

    strategy: str
    trials: int
    best: float
    drawn: int
    expected_best: float


def compare_strategies(trials: Iterable[Trial]) -> tuple[StrategyRow, ...]:
    """Return a row per strategy, the one with the best trial first.

    Strategies propose unequal numbers of trials, and the best of many is better than that of
    few. So each is judged by as many trials as the one with the fewest has. Seeds and repeats are
    left out.
    """
    scores: dict[str, list[float]] = {}  # best first, whichever way the metric goes
    for trial in ranked_winners(trials):
        if trial.candidate is not None and trial.strategy not in COMMON:
            assert trial.measurement.score is not None
            scores.setdefault(trial.strategy, []).append(trial.measurement.score)
    drawn = min(map(len, scores.values()), default=0)
    return tuple(
        StrategyRow(
            strategy=strategy,
            trials=len(found),
            best=found[0],
            drawn=drawn,
            expected_best=expected_best(found, drawn),
        )
        for strategy, found in scores.items()
    )


def expected_best(scores: Sequence[float], drawn: int) -> float:
    """Return the mean of the best of `drawn` scores over all choices without replacement.

    Args:
        scores: best first, at least `drawn`.
        drawn: from 1.
    """
    count = len(scores)
    chances = (math.comb(count - place - 1, drawn - 1) for place in range(count))
    total = sum(score * chance for score, chance in zip(scores, chances, strict=True))
    return total / math.comb(count, drawn)
