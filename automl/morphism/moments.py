"""Moments of a tensor's channels, estimated from the weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf

import numpy as np

from automl.morphism.architecture import Architecture
from automl.morphism.nodes import BATCH_NORM_EPS, RECTIFIERS, Op
from automl.morphism.weights import Array, Weights

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_ORIGINS = frozenset({Op.INPUT, Op.BATCH_NORM, Op.CONV, Op.DENSE, Op.FLATTEN})


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of a tensor's channels, estimated without data; float64, shape (C,)."""

    mean: Vector
    variance: Vector


def undoing_norm(moments: Moments) -> dict[str, Array]:
    """Return the arrays of a batch norm that is the identity in evaluation mode.

    With mean m and variance v as running statistics, gain sqrt(v + eps) and bias m undo them
    exactly. Any m and v would do; those of the tensor make the layer close to the identity in
    training mode too, where batch statistics replace the running ones.
    """
    return {
        "weight": np.sqrt(moments.variance + BATCH_NORM_EPS).astype(np.float32),
        "bias": moments.mean.astype(np.float32),
        "running_mean": moments.mean.astype(np.float32),
        "running_var": moments.variance.astype(np.float32),
    }


def estimate_moments(parent: Architecture, weights: Weights, site: int) -> Moments:
    """Return a node's moments if batch norms behave as in training and inputs are Gaussian.

    Behind a batch norm the moments are its bias and squared gain; a ReLU rectifies a Gaussian;
    an addition sums independent terms; pooling and dropout are passed over. Where nothing is
    known, mean 0 and variance 1 stand in: only training mode depends on them.
    """
    needed, pending = {site}, [site]
    while pending:
        node = parent.nodes[pending.pop()]
        fresh = set() if node.op in _ORIGINS else set(node.inputs) - needed
        needed |= fresh
        pending += fresh
    found: dict[int, Moments] = {}
    for index in sorted(needed):
        found[index] = _moments(parent, weights, index, found)
    return found[site]


def _moments(
    parent: Architecture, weights: Weights, index: int, found: dict[int, Moments]
) -> Moments:
    node = parent.nodes[index]
    if node.op is Op.BATCH_NORM:
        gain = np.asarray(weights[f"{index}.weight"], dtype=np.float64)
        return Moments(np.asarray(weights[f"{index}.bias"], dtype=np.float64), gain**2)
    if node.op in _ORIGINS:
        width = parent.shapes()[index][0]
        return Moments(np.zeros(width), np.ones(width))
    read = [found[source] for source in node.inputs]
    if node.op is Op.CONCAT:
        return Moments(
            np.concatenate([moments.mean for moments in read]),
            np.concatenate([moments.variance for moments in read]),
        )
    if node.op is Op.ADD:
        return Moments(
            np.sum([moments.mean for moments in read], axis=0),
            np.sum([moments.variance for moments in read], axis=0),
        )
    if node.op in RECTIFIERS:
        return _rectified(read[0], 6.0 if node.op is Op.RELU6 else np.inf)
    return read[0]


def _rectified(moments: Moments, top: float) -> Moments:
    """Return the moments of min(max(x, 0), top) for Gaussian x (Barr and Sherrill 1999, sec. 2)."""
    mu, sigma = moments.mean, np.maximum(np.sqrt(moments.variance), 1e-12)
    low, high = -mu / sigma, (top - mu) / sigma
    inside = _below(high) - _below(low)
    above = 1 - _below(high)
    density, top_density = _density(low), _density(high)
    reach = top if np.isfinite(top) else 0.0  # nothing lies beyond an infinite top
    mean = mu * inside + sigma * (density - top_density) + reach * above
    second = (mu**2 + sigma**2) * inside + sigma * (mu * density - (reach + mu) * top_density)
    second += reach**2 * above
    return Moments(mean, np.maximum(second - mean**2, 0.0))


def _below(z: Vector) -> Vector:
    """Return the share of a standard Gaussian that lies below each value."""
    return np.array([(1 + erf(value / np.sqrt(2))) / 2 for value in z])


def _density(z: Vector) -> Vector:
    return np.asarray(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
