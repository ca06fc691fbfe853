"""Moves: which are legal, how to draw one, and what they make of an architecture."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from automl.errors import ConfigError, SearchError
from automl.morphism.architecture import Architecture
from automl.morphism.blocks import block_sites, insert_block, residual_options, separable_options
from automl.morphism.deepen import (
    deepen,
    deepen_options,
    deepen_sites,
    enlarge_kernel,
    kernel_options,
    kernel_sites,
)
from automl.morphism.limits import Limits
from automl.morphism.move import (
    GROWING,
    MAX_WIDTH,
    SHRINKING,
    Move,
    MoveKind,
    illegal,
)
from automl.morphism.narrow import narrow, narrow_options
from automl.morphism.removal import (
    drop,
    drop_options,
    drop_sites,
    remove,
    remove_options,
    remove_sites,
)
from automl.morphism.skips import (
    add_skip,
    add_skip_options,
    concat_skip,
    concat_skip_options,
    skip_sites,
)
from automl.morphism.weights import Array, Edit, WeightMap, Weights
from automl.morphism.widen import widen, widen_options, widen_sites

__all__ = [
    "GROWING",
    "MAX_WIDTH",
    "SHRINKING",
    "Limits",
    "Move",
    "MoveKind",
    "apply_move",
    "inherit",
    "legal_moves",
    "random_move",
]

_TRIES = 16  # draws of a site per kind, so that a network at its limits costs no more than that


@dataclass(frozen=True, slots=True)
class _Family:
    """The moves of one kind.

    Attributes:
        sites: the nodes where one may be possible.
        options: the moves at such a node, with seed 0 and no noise.
        edit: makes one of them, or raises SearchError.
    """

    sites: Callable[[Architecture], Sequence[int]]
    options: Callable[[Architecture, int], list[Move]]
    edit: Callable[[Architecture, Move], Edit]


_FAMILIES: Mapping[MoveKind, _Family] = {
    MoveKind.DEEPEN: _Family(deepen_sites, deepen_options, deepen),
    MoveKind.WIDEN: _Family(widen_sites, widen_options, widen),
    MoveKind.KERNEL: _Family(kernel_sites, kernel_options, enlarge_kernel),
    MoveKind.ADD_SKIP: _Family(skip_sites, add_skip_options, add_skip),
    MoveKind.CONCAT_SKIP: _Family(skip_sites, concat_skip_options, concat_skip),
    MoveKind.RESIDUAL: _Family(block_sites, residual_options, insert_block),
    MoveKind.SEPARABLE: _Family(block_sites, separable_options, insert_block),
    MoveKind.NARROW: _Family(widen_sites, narrow_options, narrow),
    MoveKind.REMOVE: _Family(remove_sites, remove_options, remove),
    MoveKind.DROP: _Family(drop_sites, drop_options, drop),
}


def apply_move(parent: Architecture, move: Move) -> tuple[Architecture, WeightMap]:
    """Return the canonical child, and the map from the parent's weights to the child's.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    edit = _edit(parent, move)
    child = _draft(parent, edit, move)
    canonical, _ = child.canonical()
    return canonical, WeightMap(parent, canonical, edit, child.order)


def inherit(
    ancestor: Architecture, weights: Weights, moves: Sequence[Move]
) -> tuple[Architecture, dict[str, Array]]:
    """Return the last child of a chain of moves with the weights it starts from.

    Args:
        ancestor: the canonical architecture that the weights belong to.
        weights: its arrays.
        moves: oldest first, each for the canonical child of the one before.
    """
    child, inherited = ancestor, dict(weights)
    for move in moves:
        child, weight_map = apply_move(child, move)
        inherited = weight_map(inherited)
    return child, inherited


def random_move(
    architecture: Architecture,
    limits: Limits,
    rng: np.random.Generator,
    kinds: Collection[MoveKind] = tuple(MoveKind),
    noise: float = 0.0,
) -> tuple[Move, Architecture] | None:
    """Return a random move within the limits and its canonical child, None if none is found.

    Every kind is as likely as any other, then every site, then what may be done there. A bounded
    number of draws is checked, none of them twice; where most moves are over the limits, one that
    is not may be missed.

    Args:
        architecture: the canonical parent.
        limits: what the child may not exceed.
        rng: the only source of randomness.
        kinds: what the move may do.
        noise: of the moves that have some.
    """
    known = [kind for kind in MoveKind if kind in kinds]
    for kind in rng.permutation(len(known)):
        family = _FAMILIES[known[int(kind)]]
        sites = family.sites(architecture)
        for site in rng.permutation(len(sites))[:_TRIES]:
            options = family.options(architecture, sites[int(site)])
            if not options:
                continue
            move = replace(
                options[int(rng.integers(len(options)))],
                seed=int(rng.integers(2**32)),
                noise=noise if known[int(kind)] is MoveKind.WIDEN else 0.0,
            )
            child = _child(architecture, move, limits)
            if child is not None:
                return move, child.canonical()[0]
    return None


def legal_moves(
    architecture: Architecture,
    limits: Limits,
    kinds: Collection[MoveKind] = tuple(MoveKind),
) -> list[Move]:
    """Return every legal move, or those of some kinds, with seed 0 and no noise, in a fixed order.

    Builds every child; to draw one move, `random_move` is far cheaper.
    """
    found = []
    for kind in [kind for kind in MoveKind if kind in kinds]:
        family = _FAMILIES[kind]
        for site in family.sites(architecture):
            options = family.options(architecture, site)
            found += [move for move in options if _child(architecture, move, limits) is not None]
    return found


def _edit(parent: Architecture, move: Move) -> Edit:
    if not 0 <= move.site < len(parent.nodes) - 1:
        raise illegal(move, "there is no such inner node")
    return _FAMILIES[move.kind].edit(parent, move)


def _draft(parent: Architecture, edit: Edit, move: Move) -> Architecture:
    """Return the child in the edit's numbering."""
    try:
        return Architecture(parent.input_size, parent.input_channels, tuple(edit.nodes))
    except ConfigError as error:
        raise illegal(move, error.message) from error


def _child(parent: Architecture, move: Move, limits: Limits) -> Architecture | None:
    """Return the child in the edit's numbering, None if it is illegal or over a limit."""
    try:
        child = _draft(parent, _edit(parent, move), move)
    except SearchError:
        return None
    return child if limits.allow(child) else None
