"""A move as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from automl.errors import DamagedDataError, SearchError

MAX_WIDTH = 4096  # channels of a tensor that a move may make


class MoveKind(StrEnum):
    """Kinds of moves; the growing ones keep the function."""

    DEEPEN = "deepen"
    WIDEN = "widen"
    KERNEL = "kernel"
    ADD_SKIP = "add_skip"
    CONCAT_SKIP = "concat_skip"
    RESIDUAL = "residual"
    SEPARABLE = "separable"
    NARROW = "narrow"
    REMOVE = "remove"
    DROP = "drop"


SHRINKING = (MoveKind.NARROW, MoveKind.REMOVE, MoveKind.DROP)
GROWING = tuple(kind for kind in MoveKind if kind not in SHRINKING)


@dataclass(frozen=True, slots=True)
class Move:
    """A change of an architecture whose child inherits the parent's weights.

    Attributes:
        kind: what it does.
        site: node index in the architecture that it is applied to.
        seed: of its random choices.
        kernel: deepen, residual, separable: of the inserted convolution, where 0 deepens by a dense
            layer; kernel: the convolution's new kernel.
        width: widen, narrow: the layer's new channels or units.
        noise: widen: the new filters differ from those they copy by at most `noise / 2` times the
            range of the layer's weights. Nothing reads them yet, so the function stays the same.
        source: add_skip, concat_skip: the earlier node that is read as well; drop: the input that
            is no longer read.
    """

    kind: MoveKind
    site: int
    seed: int = 0
    kernel: int = 0
    width: int = 0
    noise: float = 0.0
    source: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return values for JSON."""
        return {**asdict(self), "kind": str(self.kind)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Move:
        """Return the move that `to_json` wrote, `source` being 0 where an older version wrote none.

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
                source=int(values.get("source", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedDataError(
                f"{dict(values)} is not a move: {error}", "restore the study's log"
            ) from error


def illegal(move: Move, reason: str) -> SearchError:
    """Return the error about a move that does not fit its parent."""
    return SearchError(
        f"Move {move.kind} at node {move.site} is not legal: {reason}.",
        "choose among legal_moves of the architecture it is applied to",
    )
