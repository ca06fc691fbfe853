"""Layers put behind a node, and the weights that fresh ones start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from automl.morphism.architecture import Architecture
from automl.morphism.nodes import RECTIFIERS, Node, Op
from automl.morphism.weights import NEW, Array

_KEEPS_RANGE = frozenset({Op.MAX_POOL, Op.AVG_POOL, Op.GLOBAL_POOL, Op.FLATTEN, Op.CONCAT})
_KEEPS_SIGN = _KEEPS_RANGE | {Op.DROPOUT, Op.ADD}


def insert(parent: Architecture, site: int, layers: Sequence[Node]) -> tuple[list[Node], list[int]]:
    """Return the nodes with layers behind node `site`, and the origin of each.

    The layers get the indices from `site + 1` on. What read the site reads the last of them.
    """
    shift = len(layers)
    nodes = [*parent.nodes[: site + 1], *layers]
    for node in parent.nodes[site + 1 :]:
        moved = [source if source < site else source + shift for source in node.inputs]
        nodes.append(node.reading(tuple(moved)))
    origins = [*range(site + 1), *[NEW] * shift, *range(site + 1, len(parent.nodes))]
    return nodes, origins


def never_negative(architecture: Architecture, index: int) -> bool:
    """Return whether a node's output has no negative values, so that a ReLU would change none."""
    return _comes_from(architecture, index, RECTIFIERS, _KEEPS_SIGN)


def is_idle(rectifier: Op, architecture: Architecture, index: int) -> bool:
    """Return whether a ReLU or ReLU6 behind node `index` would change none of its values."""
    if rectifier is Op.RELU6:
        return _comes_from(architecture, index, frozenset({Op.RELU6}), _KEEPS_RANGE)
    return never_negative(architecture, index)


def _comes_from(
    architecture: Architecture, index: int, origins: frozenset[Op], passed: frozenset[Op]
) -> bool:
    """Return whether every way back from a node leads through passed operations to an origin."""
    known, pending = {index}, [index]
    while pending:
        node = architecture.nodes[pending.pop()]
        if node.op in origins:
            continue
        if node.op not in passed:
            return False
        pending += [source for source in node.inputs if source not in known]
        known.update(node.inputs)
    return True


def centred(filters: Array, kernel: int) -> Array:
    """Return convolution filters in the middle of larger ones that are zero around them."""
    margin = (kernel - filters.shape[-1]) // 2
    wide: Array = np.pad(filters, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    return wide


def he_normal(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return random filters whose outputs have the variance of what they read behind a ReLU.

    Source: arXiv:1502.01852, eq. 10.
    """
    scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return rng.standard_normal(shape, dtype=np.float32) * scale


def fresh_norm(width: int, gain: float) -> dict[str, Array]:
    """Return a batch norm that has seen nothing; with gain 0 it writes zeros in either mode."""
    return {
        "weight": np.full(width, gain, np.float32),
        "bias": np.zeros(width, np.float32),
        "running_mean": np.zeros(width, np.float32),
        "running_var": np.ones(width, np.float32),
    }


def keyed(index: int, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return a node's arrays by their stored keys."""
    return {f"{index}.{name}": array for name, array in arrays.items()}
