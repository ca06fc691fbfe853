from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.stats import norm

from automl.search.surrogate.acquisition import (
    confidence_bound,
    log_expected_improvement,
    log_expected_improvement_per_cost,
)
from automl.search.surrogate.surrogate import Prediction

means, stds = st.floats(-5, 5), st.floats(0.01, 5)


def prediction(mean: ArrayLike, std: ArrayLike) -> Prediction:
    m, s = np.broadcast_arrays(np.atleast_1d(mean), np.atleast_1d(std))
    none, sure = np.zeros(m.shape), np.ones(m.shape)
    return Prediction(m.astype(np.float64), s.astype(np.float64), noise=none, feasible=sure)


def log_ei(mean: ArrayLike, std: ArrayLike, incumbent: float = 0.0) -> np.ndarray:
    return log_expected_improvement(prediction(mean, std), incumbent)


@given(mean=means, std=st.floats(0.2, 5), incumbent=means)
def test_it_is_the_logarithm_of_the_expected_improvement(
    mean: float, std: float, incumbent: float
) -> None:
    u = (incumbent - mean) / std
    assume(u > -20)  # beyond, the density underflows
    expected, _ = quad(lambda t: t * norm.pdf(t - u), 0, max(u, 0) + 12, epsabs=0, limit=200)

    assert log_ei(mean, std, incumbent)[0] == pytest.approx(np.log(expected * std), abs=1e-6)


@pytest.mark.parametrize("u", [-20.0, -50.0, -1e3, -1e4, -1e5, -1e8])
def test_it_is_finite_far_from_the_incumbent(u: float) -> None:
    # phi(u) / u² to first order: Mills' ratio, of which 3 / u² is the next term
    expected = -0.5 * u**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(-u) + np.log1p(-3 / u**2)

    accuracy = 20 / u**4 + 1e-6 + 1e-15 * u**2  # of the series, and of the numbers
    assert log_ei(-u, 1.0)[0] == pytest.approx(expected, rel=0, abs=accuracy)


@given(mean=means, std=stds, step=st.floats(0.01, 3))
def test_a_lower_mean_is_worth_more(mean: float, std: float, step: float) -> None:
    found = log_ei([mean, mean - step], std)
    bound = confidence_bound(prediction([mean, mean - step], std), beta=2.0)

    assert found[1] > found[0]
    assert bound[1] > bound[0]


@given(mean=means, std=stds, factor=st.floats(1.01, 3))
def test_a_larger_deviation_is_worth_no_less(mean: float, std: float, factor: float) -> None:
    found = log_ei(mean, [std, std * factor])
    bound = confidence_bound(prediction(mean, [std, std * factor]), beta=2.0)

    assert found[1] >= found[0] - 1e-12
    assert bound[1] > bound[0]


@pytest.mark.parametrize("joint", [-1.0, -1e4])
def test_there_is_no_jump_where_one_formula_meets_the_next(joint: float) -> None:
    u = joint * (1 + np.linspace(-1e-3, 1e-3, 201))

    found = log_ei(-u, 1.0)

    rises = np.diff(found) * np.sign(np.diff(u))
    assert (rises > 0).all()
    assert rises.max() < 1.5 * rises.min()


def test_without_doubt_it_is_the_improvement() -> None:
    assert log_ei(-0.5, 0.0)[0] == pytest.approx(np.log(0.5))
    assert np.isfinite(log_ei([0.0, 0.5], 0.0)).all()


def test_the_confidence_bound_is_an_optimists_gain() -> None:
    assert confidence_bound(prediction([1.0], [3.0]), beta=2.0).tolist() == [5.0]


@given(mean=means, std=stds, spent=st.floats(1e-3, 1e12), factor=st.floats(1.01, 100))
def test_of_equal_improvements_the_cheaper_is_worth_more(
    mean: float, std: float, spent: float, factor: float
) -> None:
    both = prediction([mean, mean], std)

    found = log_expected_improvement_per_cost(both, 0.0, np.array([spent, factor * spent]))

    assert found[0] - found[1] == pytest.approx(np.log(factor), abs=1e-6)


def test_twice_the_improvement_is_worth_twice_the_cost() -> None:
    sure = prediction([-0.5, -1.0], 0.0)

    found = log_expected_improvement_per_cost(sure, 0.0, np.array([10.0, 20.0]))

    assert found == pytest.approx(np.log([0.05, 0.05]))
