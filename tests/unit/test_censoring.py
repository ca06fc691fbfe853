from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import truncnorm

from automl.search.arrays import Matrix, Vector
from automl.search.surrogate.censoring import impute
from automl.search.surrogate.gaussian_process import condition

seeds = st.integers(0, 2**32 - 1)


def problem(seed: int, n: int = 8) -> tuple[Matrix, Vector, Vector, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 4, n)
    K = np.exp(-((x[:, None] - x[None, :]) ** 2))  # noqa: N806
    is_bound = np.arange(n) % 3 == 1
    return K, 10 ** rng.uniform(-3, 0, n), 2 * rng.standard_normal(n), is_bound


@given(seeds)
def test_bounds_rise_and_what_was_measured_stays(seed: int) -> None:
    K, noise, z, is_bound = problem(seed)  # noqa: N806

    imputed, wider = impute(K, noise, z, is_bound)

    assert (imputed[is_bound] > z[is_bound]).all()
    assert np.array_equal(imputed[~is_bound], z[~is_bound])
    assert (wider[is_bound] >= noise[is_bound]).all()
    assert np.array_equal(wider[~is_bound], noise[~is_bound])


def test_the_arguments_are_left_alone() -> None:
    arguments = problem(0)

    impute(*arguments)

    for after, before in zip(arguments, problem(0), strict=True):
        assert np.array_equal(after, before)


@given(seeds)
def test_a_bound_far_below_the_prediction_changes_nothing(seed: int) -> None:
    K, noise, z, is_bound = problem(seed)  # noqa: N806
    z[is_bound] = -1e6
    known = ~is_bound
    expected, before = condition(K[np.ix_(known, known)], noise[known], z[known]).predict(
        K[known], np.diag(K)
    )

    imputed, wider = impute(K, noise, z, is_bound)
    mean, after = condition(K, wider, imputed).predict(K, np.diag(K))

    np.testing.assert_allclose(mean, expected, atol=1e-8)
    assert (after <= before + 1e-12).all()


@pytest.mark.parametrize("bound", [-30.0, -1.0, 0.5, 3.0, 30.0, 1e3, 1e6])
def test_a_bound_beside_unrelated_observations_becomes_a_cut_normal(bound: float) -> None:
    K, noise = np.eye(2), np.array([0.1, 0.25])  # noqa: N806
    sigma = np.sqrt(1.25)  # the prior's and the noise

    first, wider = impute_once(K, noise, np.array([0.7, bound]))

    cut = truncnorm(bound / sigma, np.inf, scale=sigma)
    if bound < 20:  # scipy loses digits beyond
        assert first == pytest.approx(cut.mean(), rel=1e-9, abs=1e-9)
        assert wider == pytest.approx(0.25 + cut.var(), rel=1e-6)
    assert bound <= first <= bound + max(1.0, -bound + 1)
    assert 0.25 <= wider <= 0.25 + 1.25 + 1e-9


def impute_once(K: Matrix, noise: Vector, z: Vector) -> tuple[float, float]:  # noqa: N803
    """Impute the second of two observations with one round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("automl.search.surrogate.censoring._ROUNDS", 1)
        imputed, wider = impute(K, noise, z, np.array([False, True]))
    return float(imputed[1]), float(wider[1])


def test_neighbours_above_a_bound_are_expected_above_it_too() -> None:
    K = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.9], [0.0, 0.9, 1.0]])  # noqa: N806
    noise = np.full(3, 0.01)

    lone, _ = impute(K, noise, np.array([0.0, 2.0, -9.0]), np.array([False, True, True]))
    both, _ = impute(K, noise, np.array([0.0, 2.0, 2.0]), np.array([False, True, True]))

    assert lone[2] > 1
    assert both[1] > lone[1]


@pytest.mark.parametrize("bounds", [[False, False], [True, True]])
def test_without_bounds_or_without_anything_else_nothing_changes(bounds: list[bool]) -> None:
    noise, z = np.array([0.1, 0.2]), np.array([1.0, -1.0])

    imputed, wider = impute(np.eye(2), noise, z, np.array(bounds))

    assert imputed.tolist() == z.tolist()
    assert wider.tolist() == noise.tolist()
