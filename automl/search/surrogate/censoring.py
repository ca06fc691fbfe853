"""Observations of which a lower bound is known only (Hutter et al., arXiv:1310.1947)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx

from automl.search.arrays import Matrix, Vector
from automl.search.surrogate.gaussian_process import condition

_ROUNDS = 3


def impute(
    K: Matrix,  # noqa: N803
    noise: Vector,
    z: Vector,
    is_bound: npt.NDArray[np.bool_],
) -> tuple[Vector, Vector]:
    """Return targets and noise with each bound replaced by its expectation.

    A censored target becomes the mean of a normal distribution cut off below the bound, its noise
    grows by that distribution's variance; the others predict the distribution. Repeated, since
    censored observations inform each other (Schmee and Hahn, Technometrics 21, 1979).

    Args:
        K: kernel matrix of the observations, (n, n).
        noise: their variances, (n,).
        z: their targets, or lower bounds of them, (n,).
        is_bound: which of them are bounds, (n,).
    """
    if not is_bound.any() or is_bound.all():
        return z, noise
    known, bounds = ~is_bound, z[is_bound]
    cross, prior = K[np.ix_(known, is_bound)], np.diag(K)[is_bound]
    mean, variance = condition(K[np.ix_(known, known)], noise[known], z[known]).predict(
        cross, prior
    )
    imputed, wider = z.copy(), noise.copy()
    for _ in range(_ROUNDS):
        imputed[is_bound], cut = _truncated(mean, variance + noise[is_bound], bounds)
        wider[is_bound] = noise[is_bound] + cut
        mean, variance = condition(K, wider, imputed).predict(K[:, is_bound], prior)
    return imputed, wider


def _truncated(mean: Vector, variance: Vector, bound: Vector) -> tuple[Vector, Vector]:
    """Return mean and variance of normal distributions above a bound."""
    sigma = np.sqrt(variance)
    alpha = (bound - mean) / sigma
    # the hazard phi(a) / (1 - Phi(a)), scaled since both vanish far out
    hazard = np.sqrt(2 / np.pi) / erfcx(alpha / np.sqrt(2))
    shrunk = np.clip(1 + alpha * hazard - hazard**2, 0.0, 1.0)
    return mean + sigma * hazard, variance * shrunk
