"""Widening: more channels in a tensor, none of them read yet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from automl.morphism.architecture import Architecture
from automl.morphism.move import MAX_WIDTH, Move, MoveKind, illegal
from automl.morphism.nodes import Op
from automl.morphism.resize import (
    channel_map,
    own_width,
    resized,
    resized_arrays,
    spread_of_width,
    width_of,
)
from automl.morphism.weights import Array, Edit, Weights

WIDEN_FACTORS = (1.25, 1.5, 2.0)


def widen_sites(architecture: Architecture) -> list[int]:
    """Return the convolutions and dense layers whose channels are not given."""
    return [
        index
        for index, node in enumerate(architecture.nodes[:-1])
        if node.op is Op.DENSE or (node.op is Op.CONV and node.integer("groups") == 1)
    ]


def widen_options(architecture: Architecture, site: int) -> list[Move]:
    """Return widenings by a few factors."""
    width = width_of(architecture.nodes[site])
    widths = sorted({max(width + 1, round(width * factor)) for factor in WIDEN_FACTORS})
    return [Move(MoveKind.WIDEN, site, width=wide) for wide in widths if wide <= MAX_WIDTH]


def widen(parent: Architecture, move: Move) -> Edit:
    """Return the parent with a wider layer.

    The new channels are copies of randomly chosen ones (Net2Net, arXiv:1511.05641, sec. 3.1), but
    those who read them start with zeros. Two copies are read with different weights, so
    gradients tell them apart; and noise on a copy does not change the function, however large.

    Args:
        parent: the architecture to change.
        move: `width` above the present channels or units of node `site`; `seed` chooses what is
            copied, and the noise.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    width = own_width(parent, move)
    if move.width <= width:
        raise illegal(move, "the layer is not narrower than that")
    if move.width > MAX_WIDTH:
        raise illegal(move, f"width {move.width} is above {MAX_WIDTH}")
    maps = spread_of_width(parent, move, width)

    def changed(weights: Weights) -> dict[str, Array]:
        extra = move.width - width
        copied = np.random.default_rng(move.seed).integers(0, width, extra)

        def picks(before: int, after: int) -> npt.NDArray[np.int64]:
            return np.concatenate([np.arange(before), np.resize(copied, after - before) % before])

        arrays = resized_arrays(parent, maps, picks, weights)
        if move.noise > 0:
            for index, segments in maps.items():
                if parent.nodes[index].op in {Op.CONV, Op.DENSE}:
                    key = f"{index}.weight"
                    is_new = channel_map(segments, picks).is_new
                    _disturb(arrays[key], is_new, weights[key], move.noise, (move.seed, index))
        return arrays

    return resized(parent, maps, changed)


def _disturb(
    array: Array,
    is_new: npt.NDArray[np.bool_],
    parent: Array,
    noise: float,
    seed: tuple[int, int],
) -> None:
    """Move the new rows by at most `noise / 2` times the range of the parent's array."""
    reach = float(parent.max() - parent.min())
    shape = array[is_new].shape
    draws = np.random.default_rng(seed).random(shape, dtype=np.float32) - np.float32(0.5)
    array[is_new] += np.float32(noise * reach) * draws
