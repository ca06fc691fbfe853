import numpy as np
import pytest

from automl.domain.objective import Objective
from automl.errors import DataError
from automl.scoring.promotion import FIRST_VERSION, decide_by_hits, decide_by_values, mcnemar


def _paired(won: int, lost: int, ties: int) -> tuple[np.ndarray, np.ndarray]:
    challenger = np.array([True] * won + [False] * lost + [True] * ties)
    champion = np.array([False] * won + [True] * lost + [True] * ties)
    return challenger, champion


def test_the_first_version_is_always_promoted() -> None:
    assert FIRST_VERSION.promote
    assert FIRST_VERSION.p_value is None


def test_mcnemar_is_exact_and_one_sided() -> None:
    assert mcnemar(5, 0) == pytest.approx(1 / 32)
    assert mcnemar(9, 1) == pytest.approx(11 / 1024)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 9) > 0.99


def test_a_significant_gain_is_promoted() -> None:
    decision = decide_by_hits(*_paired(9, 1, 90), 0.05)

    assert decision.promote
    assert decision.gain == pytest.approx(0.08)
    assert decision.p_value == pytest.approx(11 / 1024)
    assert "9 of 100 gate rows won and 1 lost" in decision.reason


def test_a_gain_that_may_be_luck_is_not_promoted() -> None:
    decision = decide_by_hits(*_paired(4, 0, 96), 0.0)

    assert not decision.promote
    assert "Not significantly better" in decision.reason
    assert "p = 0.0625" in decision.reason


def test_a_significant_gain_below_the_minimum_is_not_promoted() -> None:
    decision = decide_by_hits(*_paired(10, 0, 990), 0.02)

    assert not decision.promote
    assert "Gain too small" in decision.reason
    assert "needs 2 points" in decision.reason


def test_a_gain_of_exactly_the_minimum_is_enough() -> None:
    assert decide_by_hits(*_paired(21, 0, 679), 0.03).promote


def test_an_identical_challenger_is_not_promoted() -> None:
    assert not decide_by_hits(*_paired(0, 0, 50), 0.0).promote


def test_gate_rows_must_be_the_same_for_both() -> None:
    with pytest.raises(DataError, match=r"\(3,\) of challenger, \(4,\) of champion"):
        decide_by_hits(np.ones(3, dtype=bool), np.ones(4, dtype=bool), 0.0)


# --- values ---


def _values(better_by: float, n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return predictions of challenger and champion, whose errors differ so much, and truths."""
    rng = np.random.default_rng(3)
    truth = rng.normal(10.0, 4.0, size=n)
    noise = rng.normal(size=n)
    challenger = truth + (1.5 - better_by) * noise + 0.1 * rng.normal(size=n)
    return challenger[:, None], (truth + 1.5 * noise)[:, None], truth


@pytest.mark.parametrize("objective", [Objective.RMSE, Objective.MAE, Objective.R2])
def test_values_with_smaller_errors_are_promoted_whatever_the_metrics_direction(
    objective: Objective,
) -> None:
    challenger, champion, truth = _values(better_by=0.4)

    better = decide_by_values(challenger, champion, truth, objective, 0.0)
    worse = decide_by_values(champion, challenger, truth, objective, 0.0)

    assert better.promote
    assert better.p_value == pytest.approx(1 / 2001)
    assert better.gain is not None
    assert better.gain > 0
    assert worse.gain == pytest.approx(-better.gain)
    assert not worse.promote
    assert "Not significantly better" in worse.reason


def test_the_reason_tells_the_metric_of_both() -> None:
    truth = np.zeros(50)

    decision = decide_by_values(np.full(50, 0.5), np.full(50, 2.0), truth, Objective.RMSE, 0.0)

    assert decision.reason == ("Better: rmse 2 became 0.5 on 50 gate rows, gain +1.5, p = 0.0005.")


def test_identical_values_are_not_promoted() -> None:
    values, _, truth = _values(better_by=0.0)

    decision = decide_by_values(values, values, truth, Objective.RMSE, 0.0)

    assert not decision.promote
    assert decision.p_value == 1.0


def test_a_gain_of_values_that_may_be_luck_is_not_promoted() -> None:
    rng = np.random.default_rng(8)
    truth = rng.normal(size=40)
    one, other = (truth + rng.normal(size=40) for _ in range(2))

    decisions = [
        decide_by_values(*pair, truth, Objective.MAE, 0.0) for pair in [(one, other), (other, one)]
    ]

    assert not any(decision.promote for decision in decisions)
    assert all(decision.p_value is not None and decision.p_value > 0.05 for decision in decisions)


def test_a_significant_gain_of_values_below_the_minimum_is_not_promoted() -> None:
    challenger, champion, truth = _values(better_by=0.4)

    decision = decide_by_values(challenger, champion, truth, Objective.RMSE, 5.0)

    assert not decision.promote
    assert "Gain too small" in decision.reason
    assert decision.reason.endswith("needs 5.")


def test_false_promotions_of_values_are_as_rare_as_the_test_promises() -> None:
    promoted = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=60)
        one, other = (truth + rng.normal(size=60) for _ in range(2))
        promoted += decide_by_values(one, other, truth, Objective.RMSE, 0.0).promote

    assert promoted <= 8


def test_predictions_of_values_must_be_of_the_same_rows() -> None:
    with pytest.raises(DataError, match="3 of challenger, 4 of champion"):
        decide_by_values(np.zeros(3), np.zeros(4), np.zeros(3), Objective.RMSE, 0.0)
