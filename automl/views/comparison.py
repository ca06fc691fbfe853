"""What a search would have given with another strategy, as far as its own trials tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from automl.domain.trial import Trial
from automl.search.searcher import COMMON


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """What the trials of one strategy came to.

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


def compare_strategies(trials: Iterable[Trial]) -> list[StrategyResult]:
    """Return a row per strategy, the one with the best trial first.

    Strategies propose unequal numbers of trials, and who draws more has the better best one. So
    each is judged by as many trials as the one with the fewest has. Seeds and repeats are left out.
    """
    by_strategy: dict[str, list[tuple[float, float]]] = {}
    for trial in trials:
        if trial.can_win and trial.candidate is not None:
            assert trial.loss is not None
            assert trial.measurement.score is not None
            pair = trial.loss, trial.measurement.score
            by_strategy.setdefault(trial.strategy, []).append(pair)
    compared = {name: pairs for name, pairs in by_strategy.items() if name not in COMMON}
    rows = {name: [score for _, score in sorted(pairs)] for name, pairs in compared.items()}
    drawn = min((len(scores) for scores in rows.values()), default=0)
    results = [
        StrategyResult(name, len(scores), scores[0], drawn, expected_best(scores, drawn))
        for name, scores in rows.items()
    ]
    order = {name: min(pairs)[0] for name, pairs in compared.items()}
    return sorted(results, key=lambda row: order[row.strategy])


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
