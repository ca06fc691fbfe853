"""Moves: which are legal, and what they make of an architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from automl.errors import DamagedDataError, SearchError
from automl.morphism.architecture import Architecture, Op
from automl.morphism.deepen import KERNELS, deepen, deepen_sites
from automl.morphism.weights import Array, Edit, WeightMap, Weights
from automl.morphism.widen import can_widen, widen

WIDEN_FACTORS = (1.25, 1.5, 2.0)
MAX_WIDTH = 4096


class MoveKind(StrEnum):
    """What a move does."""

    DEEPEN = "deepen"
    WIDEN = "widen"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may not exceed.

    Attributes:
        parameters: learned scalars.
        depth: convolutions and dense layers on the longest path.
        flops: multiply-adds for one image.
    """

    parameters: int = 2**24
    depth: int = 64
    flops: int = 2**28

    def allow(self, architecture: Architecture) -> bool:
        """Return whether the architecture is within all limits."""
        return (
            architecture.parameters <= self.parameters
            and architecture.depth <= self.depth
            and architecture.flops <= self.flops
        )


@dataclass(frozen=True, slots=True)
class Move:
    """A function-preserving change of an architecture.

    Attributes:
        kind: what it does.
        site: node index in the architecture that it is applied to.
        seed: of its random choices.
        kernel: deepen: of the inserted convolution; 0 inserts a dense layer.
        width: widen: the layer's new channels or units.
        noise: widen: the new filters differ from those they copy by at most `noise / 2` times the
            range of the layer's weights. Nothing reads them yet, so the function stays the same.
    """

    kind: MoveKind
    site: int
    seed: int = 0
    kernel: int = 0
    width: int = 0
    noise: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return values for JSON."""
        return {**asdict(self), "kind": str(self.kind)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Move:
        """Return the move that `to_json` wrote.

        Raises:
            DamagedDataError: the values are no move.
        """
        try:
            return cls(
                kind=MoveKind(values["kind"]),
                site=int(values["site"]),
                seed=int(values["seed"]),
                kernel=int(values["kernel"]),
                width=int(values["width"]),
                noise=float(values["noise"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedDataError(
                f"{dict(values)} is not a move: {error}", "restore the study's log"
            ) from error


def apply_move(parent: Architecture, move: Move) -> tuple[Architecture, WeightMap]:
    """Return the canonical child, and the map from the parent's weights to the child's.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    return _edit(parent, move).canonical()


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


def legal_moves(architecture: Architecture, limits: Limits) -> list[Move]:
    """Return every legal move, with seed 0 and no noise, in a fixed order."""
    convs, denses = deepen_sites(architecture)
    moves = [Move(MoveKind.DEEPEN, site, kernel=kernel) for site in convs for kernel in KERNELS] + [
        Move(MoveKind.DEEPEN, site) for site in denses
    ]
    for site, node in enumerate(architecture.nodes[:-1]):
        if node.op not in {Op.CONV, Op.DENSE} or not can_widen(architecture, site):
            continue
        width = node.whole("channels" if node.op is Op.CONV else "units")
        widths = sorted({max(width + 1, round(width * factor)) for factor in WIDEN_FACTORS})
        moves += [Move(MoveKind.WIDEN, site, width=wide) for wide in widths if wide <= MAX_WIDTH]
    return [move for move in moves if limits.allow(_edit(architecture, move).child)]


def _edit(parent: Architecture, move: Move) -> Edit:
    if not 0 <= move.site < len(parent.nodes) - 1:
        raise _illegal(move, "there is no such inner node")
    node = parent.nodes[move.site]
    if move.kind is MoveKind.DEEPEN:
        convs, denses = deepen_sites(parent)
        if move.site not in (convs if move.kernel else denses):
            raise _illegal(move, f"a layer after {node.op} would change the function")
        if move.kernel and move.kernel % 2 == 0:
            raise _illegal(move, "the kernel is even")
        return deepen(parent, move.site, move.kernel)
    if node.op not in {Op.CONV, Op.DENSE}:
        raise _illegal(move, f"a {node.op} has no width of its own")
    if move.width <= node.whole("channels" if node.op is Op.CONV else "units"):
        raise _illegal(move, "the layer is not narrower than that")
    edit = widen(parent, move.site, move.width, move.seed, move.noise)
    if edit is None:
        raise _illegal(move, "the layers around it cannot follow")
    return edit


def _illegal(move: Move, reason: str) -> SearchError:
    return SearchError(
        f"Move {move.kind} at node {move.site} is not legal: {reason}.",
        "choose among legal_moves of the architecture it is applied to",
    )
