import numpy as np
import pytest

from automl.domain.objective import Objective
from automl.errors import DataError
from automl.scoring.regression import metric_draws, regression_metrics


def _rows(n: int, noise: float, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(50.0, 3.0, size=n)
    return truth + noise * rng.normal(size=n), truth


def test_metrics_of_values_agree_with_scikit_learn() -> None:
    from sklearn import metrics as reference

    values, truth = _rows(500, noise=2.0)

    found = regression_metrics(values[:, None], truth)

    assert found["rmse"].value == pytest.approx(reference.root_mean_squared_error(truth, values))
    assert found["mae"].value == pytest.approx(reference.mean_absolute_error(truth, values))
    assert found["r2"].value == pytest.approx(reference.r2_score(truth, values))


def test_every_interval_contains_its_value() -> None:
    for metric in regression_metrics(*_rows(300, noise=1.0)).values():
        assert metric.low < metric.value < metric.high
        assert metric.n == 300


def test_intervals_hold_the_truth_as_often_as_they_promise() -> None:
    inside = 0
    for seed in range(40):
        interval = regression_metrics(*_rows(200, noise=2.0, seed=seed))["rmse"]
        inside += interval.low <= 2.0 <= interval.high

    assert inside >= 34


def test_equal_seeds_give_equal_intervals() -> None:
    rows = _rows(80, noise=1.0)

    assert regression_metrics(*rows, seed=[3, 1]) == regression_metrics(*rows, seed=[3, 1])
    assert regression_metrics(*rows, seed=1) != regression_metrics(*rows, seed=2)


def test_large_values_cost_r2_no_digits() -> None:
    values, truth = _rows(200, noise=1.0)

    moved = regression_metrics(values + 1e8, truth + 1e8)["r2"].value

    assert moved == pytest.approx(regression_metrics(values, truth)["r2"].value, abs=1e-6)


@pytest.mark.parametrize(("error", "r2"), [(0.0, 1.0), (0.5, 0.0)])
def test_r2_of_equal_true_values_is_that_of_scikit_learn(error: float, r2: float) -> None:
    truth = np.full(10, 4.25)

    assert regression_metrics(truth + error, truth)["r2"].value == r2


@pytest.mark.parametrize("values", [np.zeros((3, 1)), np.zeros((2, 2)), np.zeros(0)])
def test_predictions_that_do_not_fit_the_rows_are_refused(values: np.ndarray) -> None:
    with pytest.raises(DataError, match="2 true values for predictions of shape"):
        regression_metrics(values, np.zeros(2))


def test_metrics_without_rows_are_refused() -> None:
    with pytest.raises(DataError, match="0 true values"):
        regression_metrics(np.zeros((0, 1)), np.zeros(0))


def test_both_models_are_measured_on_the_same_draws() -> None:
    values, truth = _rows(50, noise=1.0)

    of_all, drawn = metric_draws(values, values, truth, Objective.MAE)

    assert of_all[0] == of_all[1] == pytest.approx(np.abs(values - truth).mean())
    assert drawn.shape == (2000, 2)
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])


def test_values_have_no_accuracy() -> None:
    with pytest.raises(DataError, match="Values have no accuracy"):
        metric_draws(np.zeros(2), np.zeros(2), np.zeros(2), Objective.ACCURACY)
