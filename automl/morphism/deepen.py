"""Deepening: an identity layer where its ReLU changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import erf

import numpy as np

from automl.morphism.architecture import BATCH_NORM_EPS, Architecture, Node, Op
from automl.morphism.weights import Array, Constant, Edit, Inherit, Recipe, Weights

KERNELS = (1, 3)
_KEEPS_SIGN = frozenset(
    {Op.MAX_POOL, Op.AVG_POOL, Op.GLOBAL_POOL, Op.FLATTEN, Op.DROPOUT, Op.ADD, Op.CONCAT}
)


def deepen_sites(architecture: Architecture) -> tuple[list[int], list[int]]:
    """Return the nodes after which a convolution and a dense layer may be inserted.

    A ReLU behind an identity keeps the function only where no value is negative: behind a ReLU,
    and for dense layers also behind the pooling or flattening of such a tensor.
    """
    shapes = architecture.shapes()
    never_negative: list[bool] = []
    convs, denses = [], []
    for index, node in enumerate(architecture.nodes):
        inherited = node.op in _KEEPS_SIGN and all(never_negative[i] for i in node.inputs)
        never_negative.append(node.op is Op.RELU or inherited)
        if len(shapes[index]) == 3 and node.op is Op.RELU:
            convs.append(index)
        is_vector_source = node.op in {Op.RELU, Op.GLOBAL_POOL, Op.FLATTEN}
        if len(shapes[index]) == 1 and is_vector_source and never_negative[index]:
            denses.append(index)
    return convs, denses


def deepen(parent: Architecture, site: int, kernel: int) -> Edit:
    """Return the parent with an identity layer and a ReLU after node `site`.

    Args:
        parent: the architecture to change.
        site: one of `deepen_sites`.
        kernel: of a convolution (odd), or 0 for a dense layer.
    """
    width = parent.shapes()[site][0]
    if kernel:
        attributes = {"channels": width, "kernel": kernel, "stride": 1, "groups": 1, "bias": 0}
        layers = [Node(Op.CONV, (site,), attributes), Node(Op.BATCH_NORM, (site + 1,))]
    else:
        layers = [Node(Op.DENSE, (site,), {"units": width})]
    layers.append(Node(Op.RELU, (site + len(layers),)))
    shift = len(layers)

    def moved(index: int) -> int:
        return index if index < site else index + shift  # readers of the site read the new ReLU

    before = parent.nodes[: site + 1]
    after = [
        replace(node, inputs=tuple(moved(source) for source in node.inputs))
        for node in parent.nodes[site + 1 :]
    ]
    recipes: dict[str, Recipe] = {}
    for key in parent.weight_shapes():
        index, name = key.split(".")
        place = int(index) if int(index) <= site else int(index) + shift
        recipes[f"{place}.{name}"] = Inherit(key)
    recipes |= _identity_recipes(parent, site, kernel, width)
    return Edit(replace(parent, nodes=(*before, *layers, *after)), recipes)


def _identity_recipes(
    parent: Architecture, site: int, kernel: int, width: int
) -> dict[str, Recipe]:
    identity = np.eye(width, dtype=np.float32)
    if not kernel:
        zeros = Constant(np.zeros(width, dtype=np.float32))
        return {f"{site + 1}.weight": Constant(identity), f"{site + 1}.bias": zeros}
    taps = np.zeros((width, width, kernel, kernel), dtype=np.float32)
    taps[:, :, kernel // 2, kernel // 2] = identity
    norm = site + 2
    return {
        f"{site + 1}.weight": Constant(taps),
        f"{norm}.weight": Calibrated(parent, site, _gain),
        f"{norm}.bias": Calibrated(parent, site, _mean),
        f"{norm}.running_mean": Calibrated(parent, site, _mean),
        f"{norm}.running_var": Calibrated(parent, site, _variance),
    }


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of a tensor's channels, estimated without data; float64, shape (C,)."""

    mean: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    variance: np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """An array of a batch norm that is the identity in evaluation mode.

    With mean m and variance v as running statistics, gain sqrt(v + eps) and bias m undo them
    exactly. Any m and v would do; those estimated for the tensor make the layer close to the
    identity in training mode too, where batch statistics replace the running ones.

    Attributes:
        parent: the architecture that the weights belong to.
        site: the node whose output the batch norm reads through an identity convolution.
        part: picks the array.
    """

    parent: Architecture
    site: int
    part: Callable[[Moments], Array]

    def build(self, weights: Weights) -> Array:
        """Return the array, float32, shape (C,)."""
        return self.part(estimate_moments(self.parent, weights, self.site))


def _mean(moments: Moments) -> Array:
    return moments.mean.astype(np.float32)


def _variance(moments: Moments) -> Array:
    return moments.variance.astype(np.float32)


def _gain(moments: Moments) -> Array:
    return np.sqrt(moments.variance + BATCH_NORM_EPS).astype(np.float32)


def estimate_moments(parent: Architecture, weights: Weights, site: int) -> Moments:
    """Return a node's moments if batch norms behave as in training and inputs are Gaussian.

    Behind a batch norm the moments are its bias and squared gain; a ReLU rectifies a Gaussian;
    an addition sums independent terms; pooling and dropout are passed over. Where nothing is
    known, mean 0 and variance 1 stand in: only training mode depends on them.
    """
    node = parent.nodes[site]
    if node.op is Op.BATCH_NORM:
        gain = np.asarray(weights[f"{site}.weight"], dtype=np.float64)
        return Moments(np.asarray(weights[f"{site}.bias"], dtype=np.float64), gain**2)
    if node.op in {Op.INPUT, Op.CONV, Op.DENSE, Op.FLATTEN}:
        width = parent.shapes()[site][0]
        return Moments(np.zeros(width), np.ones(width))
    read = [estimate_moments(parent, weights, source) for source in node.inputs]
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
    return _rectified(read[0]) if node.op is Op.RELU else read[0]


def _rectified(moments: Moments) -> Moments:
    """Return the moments of max(x, 0) for Gaussian x (Barr and Sherrill 1999, eq. 2 and 3)."""
    mu, sigma = moments.mean, np.sqrt(moments.variance)
    z = mu / np.maximum(sigma, 1e-12)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    below = np.array([(1 + erf(value / np.sqrt(2))) / 2 for value in z])
    mean = mu * below + sigma * density
    second = (mu**2 + sigma**2) * below + mu * sigma * density
    return Moments(mean, np.maximum(second - mean**2, 0.0))
