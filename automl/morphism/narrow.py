"""Narrowing: a layer keeps its most important channels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from automl.morphism.architecture import Architecture
from automl.morphism.move import Move, MoveKind, illegal
from automl.morphism.nodes import BATCH_NORM_EPS, Op
from automl.morphism.resize import (
    Segments,
    is_depthwise,
    own_width,
    resized,
    resized_arrays,
    spread_of_width,
    width_of,
)
from automl.morphism.weights import Array, Edit, Weights

NARROW_FACTORS = (0.5, 0.75)
MIN_WIDTH = 4  # that a narrowing leaves


def narrow_options(architecture: Architecture, site: int) -> list[Move]:
    """Return narrowings by a few factors; the sites are those of a widening."""
    width = width_of(architecture.nodes[site])
    widths = sorted({round(width * factor) for factor in NARROW_FACTORS})
    return [Move(MoveKind.NARROW, site, width=few) for few in widths if MIN_WIDTH <= few < width]


def narrow(parent: Architecture, move: Move) -> Edit:
    """Return the parent with a narrower layer.

    The child depends on the widths alone; which channels it keeps is decided when the weights are
    there. Not exact: what the lost channels contributed is gone.

    Args:
        parent: the architecture to change.
        move: `width` below the present channels or units of node `site`.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    width = own_width(parent, move)
    if not 1 <= move.width < width:
        raise illegal(move, "the layer is not wider than that")
    maps = spread_of_width(parent, move, width)

    def changed(weights: Weights) -> dict[str, Array]:
        score = channel_importance(parent, maps, (width, move.width), weights)
        kept = np.sort(np.argsort(-score, kind="stable")[: move.width])

        def picks(before: int, _: int) -> npt.NDArray[np.int64]:
            pixels = before // width  # above 1 behind a flattening
            return (kept[:, None] * pixels + np.arange(pixels)).ravel()

        return resized_arrays(parent, maps, picks, weights)

    return resized(parent, maps, changed)


def channel_importance(
    parent: Architecture,
    maps: Mapping[int, Segments],
    run: tuple[int, int],
    weights: Weights,
) -> npt.NDArray[np.float64]:
    """Return how much each channel of a run matters: the L1 norms of the filters that write it.

    Where a batch norm follows a layer, its filters count times the gain over the running standard
    deviation, which is what they amount to in evaluation mode (arXiv:1608.08710, sec. 3.1).

    Args:
        parent: the architecture that the weights belong to.
        maps: the tensors that change.
        run: the run's length before and after.
        weights: the parent's arrays.
    """
    score = np.zeros(run[0])
    for index, segments in maps.items():
        node = parent.nodes[index]
        if node.op not in {Op.CONV, Op.DENSE} or is_depthwise(parent, index):
            continue
        filters = np.asarray(weights[f"{index}.weight"], dtype=np.float64)
        norms = np.abs(filters).reshape(len(filters), -1).sum(axis=1)
        readers = [parent.nodes[reader].op for reader in parent.consumers()[index]]
        if readers == [Op.BATCH_NORM]:
            norm = parent.consumers()[index][0]
            variance = np.asarray(weights[f"{norm}.running_var"], dtype=np.float64)
            norms *= np.abs(weights[f"{norm}.weight"]) / np.sqrt(variance + BATCH_NORM_EPS)
        start = 0
        for segment in segments:
            if segment == run:
                score += norms[start : start + run[0]]
            start += segment[0]
    return score
