from __future__ import annotations

from itertools import combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.candidate import Candidate
from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.views.comparison import compare_strategies, expected_best


def trial(number: int, strategy: str, score: float | None, loss: float | None = None) -> Trial:
    """Return a trial; without a loss, higher scores are better."""
    measured = Measurement()
    if score is not None:
        measured = Measurement(
            score=score, loss=-score if loss is None else loss, weights="weights"
        )
    return Trial(
        number=number,
        run="one",
        generation=0,
        snapshot="s",
        state=TrialState.FINISHED,
        strategy=strategy,
        candidate=Candidate(genotype=str(number), hyperparameters={}),
        outcome=Outcome.COMPLETED if score is not None else Outcome.FAILED,
        measurement=measured,
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_the_expectation_is_the_mean_over_all_choices(
    scores: list[float], data: st.DataObject
) -> None:
    drawn = data.draw(st.integers(1, len(scores)))
    scores.sort(reverse=True)

    assert expected_best(scores, drawn) == pytest.approx(
        mean(max(choice) for choice in combinations(scores, drawn))
    )


def test_each_strategy_is_judged_by_as_many_trials_as_the_rarest_has() -> None:
    rows = compare_strategies(
        [
            trial(0, "seed", 0.99),
            trial(1, "random", 0.5),
            trial(2, "random", None),
            trial(3, "bayesian", 0.9),
            trial(4, "bayesian", 0.6),
            trial(5, "repeat", 0.98),
        ]
    )

    assert [(row.strategy, row.trials, row.best, row.drawn) for row in rows] == [
        ("bayesian", 2, 0.9, 1),
        ("random", 1, 0.5, 1),
    ]
    assert [row.expected_best for row in rows] == pytest.approx([0.75, 0.5])


def test_of_scores_that_are_minimised_the_least_is_best() -> None:
    scores = {"random": (1.0, 3.0), "bayesian": (0.5,)}
    trials = [(name, score) for name, found in scores.items() for score in found]

    rows = compare_strategies(trial(n, name, s, loss=s) for n, (name, s) in enumerate(trials))

    assert [(row.strategy, row.best, row.expected_best) for row in rows] == [
        ("bayesian", 0.5, 0.5),
        ("random", 1.0, 2.0),
    ]


def test_a_search_that_has_only_evaluated_seeds_compares_nothing() -> None:
    assert compare_strategies([trial(0, "seed", 0.9)]) == ()
