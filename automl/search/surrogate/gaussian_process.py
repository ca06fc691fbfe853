"""Gaussian-process regression with given kernel matrices (Rasmussen and Williams, 2006, ch. 2).

`K` is the kernel matrix of the observations, (n, n); `noise` the variance of each observation,
(n,); `L` the Cholesky factor of K + diag(noise); `z` the observed values, (n,).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from automl.errors import SearchError
from automl.search.arrays import Matrix, Vector

EIGENVALUE_TOLERANCE = 1e-8  # of the largest diagonal entry: rounding, not a defect of the kernel


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Posterior of a Gaussian process after its observations.

    Attributes:
        factor: `L`, lower triangular, (n, n).
        weights: (K + diag(noise))⁻¹ z, (n,).
        log_likelihood: logarithm of the density of `z`, in nats.
    """

    factor: Matrix
    weights: Vector
    log_likelihood: float

    def predict(self, cross: Matrix, prior: Vector) -> tuple[Vector, Vector]:
        """Return means and variances of the function, without noise.

        Args:
            cross: kernel between observations and points, (n, m).
            prior: kernel of each point with itself, (m,).
        """
        half = solve_triangular(self.factor, cross, lower=True, check_finite=False)
        variance = prior - np.einsum("nm,nm->m", half, half)
        return cross.T @ self.weights, np.maximum(variance, 0.0)


def condition(K: Matrix, noise: Vector, z: Vector) -> Posterior:  # noqa: N803
    """Return the posterior of a Gaussian process with mean 0.

    Args:
        K: positive semidefinite kernel matrix, (n, n).
        noise: variance of each observation, above 0, (n,).
        z: the observed values, (n,).

    Raises:
        SearchError: a value is not finite, or `K` has a negative eigenvalue that is not a rounding
            error and that the noise does not outweigh.
    """
    if not (np.isfinite(K).all() and np.isfinite(noise).all() and np.isfinite(z).all()):
        raise SearchError(
            "The surrogate's kernel, noise or targets hold a value that is not finite.",
            "this is a defect of the search space's description; please report it",
        )
    covariance = K + np.diag(noise)
    try:
        factor = cholesky(covariance, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        factor = _repaired_factor(K, covariance)
    weights = cho_solve((factor, True), z, check_finite=False)
    log_density = -0.5 * (z @ weights) - np.log(np.diag(factor)).sum()
    return Posterior(factor, weights, float(log_density - 0.5 * len(z) * np.log(2 * np.pi)))


def _repaired_factor(K: Matrix, covariance: Matrix) -> Matrix:  # noqa: N803
    """Factor a covariance that rounding has made indefinite; measured first, then jittered."""
    scale = float(np.diag(K).max())
    smallest = float(np.linalg.eigvalsh(K)[0])
    if smallest < -EIGENVALUE_TOLERANCE * scale * len(K):
        raise SearchError(
            f"The surrogate's kernel matrix has the eigenvalue {smallest:.3g}; a kernel has none "
            "below 0.",
            "this is a defect of the kernel; please report it",
        )
    jitter = 2 * EIGENVALUE_TOLERANCE * scale * len(K)
    factor: Matrix = cholesky(covariance + jitter * np.eye(len(K)), lower=True)
    return factor
