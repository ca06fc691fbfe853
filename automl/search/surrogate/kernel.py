"""The surrogate's kernel, one code path for fitting and prediction, and its hyperparameters.

k(x, x') = (sum over g of w_g exp(-d_g(x, x') / l_g)) (1 - r + r exp(-d_genes(x, x') / l_genes))

where g runs over the kinds of architecture features and the training that is behind inherited
weights, and d_g is a squared Euclidean distance in units of its median. Sums and products of
positive semidefinite kernels are positive semidefinite (Rasmussen and Williams, 2006, sec. 4.2.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_solve
from scipy.optimize import minimize

from automl.search.arrays import Matrix, Vector
from automl.search.surrogate.features import GENES, Distances
from automl.search.surrogate.gaussian_process import condition

NOISE_FLOOR = 1e-3  # variance, of targets whose variance is 1
_TYPICAL_NOISE = 1e-2
_TYPICAL_ERROR_SHARE = 0.2
_LENGTH = 0.6  # typical length of a kind, in medians of its distances
_STEPS = 40
# Standard deviations of the logarithms under the prior.
_WEIGHT_SPREAD, _LENGTH_SPREAD, _NOISE_SPREAD, _SHARE_SPREAD = 1.0, 0.7, 1.5, 1.5
_ERROR_SPREAD = 1.0
_REACH = 8.0  # standard deviations of the prior; a line search may try steps far beyond


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel with its hyperparameters.

    Attributes:
        weights: variance of each kind of feature but the training genes.
        lengths: squared distance over which the correlation falls to 1/e, by kind; with an entry
            for the training genes if they matter.
        genes_share: share of the variance that differs between training genes, 0 to 1.
        noise: variance that all observations have.
        error_share: share of its squared standard error that an observation has in addition. All
            scores are measured on the same rows, so that most of their errors are common and say
            nothing of which is better.
    """

    weights: Mapping[str, float]
    lengths: Mapping[str, float]
    genes_share: float
    noise: float
    error_share: float = 0.0

    @property
    def variance(self) -> float:
        """The kernel of a point with itself."""
        return sum(self.weights.values())

    def noises(self, errors: Vector) -> Vector:
        """Return the variance of each observation, given its squared standard error."""
        return self.noise + self.error_share * errors

    def __call__(self, distances: Distances) -> Matrix:
        """Return the kernel matrix for matrices of squared distances."""
        return self.factors(distances).product()

    def factors(self, distances: Distances) -> Factors:
        """Return what the kernel matrix is made of; fitting and prediction both begin here."""
        terms = {
            kind: weight * np.exp(-distances[kind] / self.lengths[kind])
            for kind, weight in self.weights.items()
        }
        shape = next(iter(distances.values())).shape
        total = np.zeros(shape) if terms else np.ones(shape)  # ones: nothing tells them apart
        for term in terms.values():
            total += term
        near = None
        if self.genes_share > 0:
            near = np.exp(-distances[GENES] / self.lengths[GENES])
        return Factors(terms, total, near, self.genes_share)


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """A kernel matrix in parts, each of its shape.

    Attributes:
        terms: of each kind of architecture feature.
        total: their sum.
        near: closeness of the training genes, 0 to 1; None if they do not matter.
        genes_share: share of the variance that differs between training genes.
    """

    terms: Mapping[str, Matrix]
    total: Matrix
    near: Matrix | None
    genes_share: float

    @property
    def blend(self) -> Matrix | float:
        """Share that the genes leave of the covariance."""
        return 1.0 if self.near is None else 1 - self.genes_share + self.genes_share * self.near

    def product(self) -> Matrix:
        """Return the kernel matrix."""
        return self.total * self.blend


def fit_kernel(
    distances: Distances, z: Vector, errors: Vector, extra: Vector | None = None
) -> Kernel:
    """Return the kernel of the largest marginal likelihood, times a weak prior.

    The prior is log-normal around equal weights, lengths of 0.6 median distances, a noise of 0.01
    and a fifth of the squared standard errors; it decides where the data do not.

    Args:
        distances: squared distances between the observations by kind, (n, n) each.
        z: targets of about mean 0 and variance 1, (n,).
        errors: squared standard error of each target, (n,).
        extra: variance that a target has in any case, (n,); by default none.
    """
    scales = {kind: _scale(apart) for kind, apart in distances.items()}
    objective = _Objective(
        {kind: distances[kind] / (scale or 1.0) for kind, scale in scales.items()},
        z,
        errors,
        np.zeros(len(z)) if extra is None else extra,
    )
    found = minimize(
        objective, objective.centre, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}
    )
    kernel = objective.kernel(found.x)
    lengths = {kind: length * scales[kind] for kind, length in kernel.lengths.items()}
    if not kernel.weights:  # one architecture only: any kind will do
        kind = next(kind for kind in distances if kind != GENES)
        return replace(kernel, weights={kind: 1.0}, lengths={kind: 1.0, **lengths})
    return replace(kernel, lengths=lengths)


def _scale(apart: Matrix) -> float:
    """Return the median of the distances that are not 0; 0 if all are."""
    positive = apart[apart > 0]
    return float(np.median(positive)) if positive.size else 0.0


class _Objective:
    """Negative log marginal likelihood minus log prior, with its gradient.

    The parameters are logarithms: weights, lengths, then length and odds of the genes if there are
    any, the share of errors likewise, then noise (Rasmussen and Williams, 2006, eq. 5.9).
    """

    def __init__(self, distances: Distances, z: Vector, errors: Vector, extra: Vector) -> None:
        informative = [kind for kind, apart in distances.items() if apart.any()]
        self._kinds = [kind for kind in informative if kind != GENES]
        self._has_genes = GENES in informative
        self._has_errors = bool(errors.any())
        self._distances, self._z, self._errors, self._extra = distances, z, errors, extra
        count = len(self._kinds)
        self.centre = np.concatenate(
            [
                np.full(count, -np.log(max(count, 1))),
                np.full(count, np.log(_LENGTH)),
                [np.log(_LENGTH), 0.0] if self._has_genes else [],
                [np.log(_TYPICAL_ERROR_SHARE)] if self._has_errors else [],
                [np.log(_TYPICAL_NOISE)],
            ]
        )
        self._spread = np.concatenate(
            [
                np.full(count, _WEIGHT_SPREAD),
                np.full(count, _LENGTH_SPREAD),
                [_LENGTH_SPREAD, _SHARE_SPREAD] if self._has_genes else [],
                [_ERROR_SPREAD] if self._has_errors else [],
                [_NOISE_SPREAD],
            ]
        )

    def kernel(self, parameters: Vector) -> Kernel:
        """Return the kernel with these parameters, lengths in median distances."""
        parameters = self._within_reach(parameters)
        count = len(self._kinds)
        weights = dict(zip(self._kinds, np.exp(parameters[:count]).tolist(), strict=True))
        lengths = np.exp(parameters[count : 2 * count]).tolist()
        by_kind = dict(zip(self._kinds, lengths, strict=True))
        share = 0.0
        if self._has_genes:
            by_kind[GENES] = float(np.exp(parameters[2 * count]))
            share = float(1 / (1 + np.exp(-parameters[2 * count + 1])))
        return Kernel(
            weights,
            by_kind,
            share,
            noise=float(np.exp(parameters[-1])) + NOISE_FLOOR,
            error_share=float(np.exp(parameters[-2])) if self._has_errors else 0.0,
        )

    def _within_reach(self, parameters: Vector) -> Vector:
        reach = _REACH * self._spread
        return np.clip(parameters, self.centre - reach, self.centre + reach)

    def __call__(self, parameters: Vector) -> tuple[float, Vector]:
        """Return the value and its gradient; beyond reach, only the prior changes."""
        kernel = self.kernel(parameters)
        share, factors = kernel.genes_share, kernel.factors(self._distances)
        terms, total, near = factors.terms, factors.total, factors.near
        noise = self._extra + kernel.noises(self._errors)
        posterior = condition(factors.product(), noise, self._z)
        identity = np.eye(len(self._z))
        inverse = cho_solve((posterior.factor, True), identity, check_finite=False)
        slope = 0.5 * (inverse - np.outer(posterior.weights, posterior.weights))
        blended = slope * factors.blend
        gradient = [float(np.sum(blended * term)) for term in terms.values()]
        gradient += [
            float(np.sum(blended * term * self._distances[kind])) / kernel.lengths[kind]
            for kind, term in terms.items()
        ]
        if near is not None:
            in_genes = slope * total * near * share
            gradient.append(
                float(np.sum(in_genes * self._distances[GENES])) / kernel.lengths[GENES]
            )
            gradient.append(share * (1 - share) * float(np.sum(slope * total * (near - 1))))
        if self._has_errors:
            gradient.append(kernel.error_share * float(np.diag(slope) @ self._errors))
        gradient.append(float(np.trace(slope)) * (kernel.noise - NOISE_FLOOR))
        away = (parameters - self.centre) / self._spread
        value = -posterior.log_likelihood + 0.5 * float(away @ away)
        is_within = parameters == self._within_reach(parameters)
        return value, np.array(gradient) * is_within + away / self._spread
