"""Each objective knows its direction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.objective import Objective

BETTER = {  # a score and a worse one, on the usual scale of each
    Objective.ACCURACY: (0.9, 0.8),
    Objective.LOG_LOSS: (0.1, 0.2),
    Objective.BALANCED_ACCURACY: (0.9, 0.8),
    Objective.MACRO_F1: (0.9, 0.8),
    Objective.ROC_AUC: (0.9, 0.5),
    Objective.RMSE: (1.5, 2.5),
    Objective.MAE: (1.5, 2.5),
    Objective.R2: (0.9, -0.3),
}


def test_every_objective_is_here() -> None:
    assert set(BETTER) == set(Objective)


@pytest.mark.parametrize("objective", Objective)
def test_the_better_score_has_the_lower_loss(objective: Objective) -> None:
    better, worse = BETTER[objective]

    assert objective.loss(better) < objective.loss(worse)
    assert objective.is_higher_better == (better > worse)


@pytest.mark.parametrize("objective", Objective)
@given(score=st.floats(allow_nan=False))
def test_a_loss_gives_its_score_back(objective: Objective, score: float) -> None:
    assert objective.score(objective.loss(score)) == score
    assert abs(objective.loss(score)) == abs(score)


def test_metrics_of_values_are_for_regression() -> None:
    regression = {objective for objective in Objective if not objective.is_for_classification}

    assert regression == {Objective.RMSE, Objective.MAE, Objective.R2}
