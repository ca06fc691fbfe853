"""Value of evaluating a candidate; the higher the better. Losses are minimised."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from scipy.special import erfcx, log_ndtr

from automl.search.arrays import Vector
from automl.search.surrogate.surrogate import Prediction

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)


class Acquisition(StrEnum):
    """The formula."""

    CONFIDENCE_BOUND = "confidence_bound"
    LOG_EXPECTED_IMPROVEMENT = "log_expected_improvement"
    LOG_EXPECTED_IMPROVEMENT_PER_COST = "log_expected_improvement_per_cost"


def confidence_bound(prediction: Prediction, beta: float) -> Vector:
    """Return beta sigma - mu (GP-UCB, Srinivas et al., arXiv:0912.3995, for a minimum)."""
    return np.asarray(beta * prediction.std - prediction.mean, dtype=np.float64)


def log_expected_improvement(prediction: Prediction, incumbent: float) -> Vector:
    """Return the logarithm of E[max(incumbent - f, 0)], finite far from the incumbent too.

    Ament et al., arXiv:2310.20708, eq. 9.
    """
    std = np.maximum(prediction.std, 1e-12)
    return np.asarray(_log_h((incumbent - prediction.mean) / std) + np.log(std), dtype=np.float64)


def log_expected_improvement_per_cost(
    prediction: Prediction, incumbent: float, spent: Vector
) -> Vector:
    """Return the logarithm of the expected improvement per cost of having it.

    Snoek et al., arXiv:1206.2944, sec. 3.2: expected improvement per second.

    Args:
        prediction: of m candidates.
        incumbent: the target to improve on.
        spent: predicted cost of evaluating each of them, (m,), positive.
    """
    return np.asarray(
        log_expected_improvement(prediction, incumbent) - np.log(spent), dtype=np.float64
    )


def _log_h(u: Vector) -> Vector:
    """Return log(phi(u) + u Phi(u)), stably."""
    near = np.maximum(u, -1.0)
    plain = np.log(np.exp(-0.5 * near**2 - _LOG_SQRT_2PI) + near * np.exp(log_ndtr(near)))
    far = np.minimum(u, -1.0)
    # phi(u) + u Phi(u) = phi(u) (1 - |u| sqrt(pi / 2) erfcx(|u| / sqrt 2))
    rest = np.abs(far) * np.sqrt(np.pi / 2) * erfcx(np.abs(far) / np.sqrt(2))
    very_far = far < -1e4  # the difference is 1/u² there, below what float64 resolves
    safe = np.where(very_far, 0.5, 1 - rest)
    tail = np.where(very_far, -2 * np.log(np.abs(far)), np.log(np.maximum(safe, 1e-300)))
    value = np.where(u > -1.0, plain, -0.5 * far**2 - _LOG_SQRT_2PI + tail)
    return np.asarray(value, dtype=np.float64)
