from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from automl.errors import SearchError
from automl.search.arrays import Matrix, Vector
from automl.search.surrogate.gaussian_process import condition

seeds = st.integers(0, 2**32 - 1)


def gaussian(a: Matrix, b: Matrix) -> Matrix:
    return np.asarray(np.exp(-((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2) / 2))


def problem(seed: int, n: int) -> tuple[Matrix, Vector, Vector, Matrix]:
    """Points, noise, values and further points."""
    rng = np.random.default_rng(seed)
    noise = 10 ** rng.uniform(-3, 0, n)
    return rng.standard_normal((n, 2)), noise, rng.standard_normal(n), rng.standard_normal((6, 2))


@given(seed=seeds, n=st.integers(1, 12))
def test_it_predicts_by_the_textbook(seed: int, n: int) -> None:
    x, noise, z, new = problem(seed, n)
    cross, covariance = gaussian(x, new), gaussian(x, x) + np.diag(noise)

    mean, variance = condition(gaussian(x, x), noise, z).predict(cross, np.ones(len(new)))

    np.testing.assert_allclose(mean, cross.T @ np.linalg.solve(covariance, z), atol=1e-8)
    expected = 1 - np.diag(cross.T @ np.linalg.solve(covariance, cross))
    np.testing.assert_allclose(variance, expected, atol=1e-8)


@given(seed=seeds, n=st.integers(1, 12))
def test_the_likelihood_is_the_density_of_the_observations(seed: int, n: int) -> None:
    x, noise, z, _ = problem(seed, n)

    found = condition(gaussian(x, x), noise, z).log_likelihood

    density = multivariate_normal(np.zeros(n), gaussian(x, x) + np.diag(noise))
    assert found == pytest.approx(density.logpdf(z), rel=1e-8)


@given(seed=seeds, n=st.integers(1, 12))
def test_variances_lie_between_zero_and_the_priors(seed: int, n: int) -> None:
    x, _, z, new = problem(seed, n)
    points = np.concatenate([x, new])

    posterior = condition(gaussian(x, x), np.full(n, 1e-6), z)
    _, variance = posterior.predict(gaussian(x, points), np.ones(len(points)))

    assert (variance >= 0).all()
    assert (variance <= 1 + 1e-12).all()
    assert (variance[:n] < 1e-5).all()


def test_repeated_observations_are_all_taken_in() -> None:
    same = np.ones((3, 3))

    mean, variance = condition(same, np.full(3, 0.3), np.array([1.0, 2.0, 6.0])).predict(
        np.ones((3, 1)), np.ones(1)
    )

    # as one observation of their mean with a third of the noise
    assert mean == pytest.approx([3 / 1.1])
    assert variance == pytest.approx([1 - 1 / 1.1])


def test_an_eigenvalue_that_rounding_has_made_negative_is_repaired() -> None:
    K = np.ones((3, 3)) - 1e-9 * np.diag([1.0, 0.0, 0.0])  # noqa: N806
    assert np.linalg.eigvalsh(K)[0] < 0

    posterior = condition(K, np.full(3, 1e-15), np.ones(3))
    mean, variance = posterior.predict(K, np.diag(K))

    np.testing.assert_allclose(mean, np.ones(3), atol=1e-6)
    assert (variance < 1e-6).all()


def test_a_matrix_that_is_no_kernel_is_refused() -> None:
    K = np.array([[1.0, 2.0], [2.0, 1.0]])  # noqa: N806

    with pytest.raises(SearchError, match="has the eigenvalue -1; a kernel has none below 0"):
        condition(K, np.full(2, 0.01), np.zeros(2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(3))
def test_values_that_are_not_finite_are_refused(bad: float, place: int) -> None:
    K, noise, z = np.eye(2), np.ones(2), np.zeros(2)  # noqa: N806
    [K, noise, z][place].flat[0] = bad

    with pytest.raises(SearchError, match="hold a value that is not finite"):
        condition(K, noise, z)
