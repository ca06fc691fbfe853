"""Skips: a node's readers see an earlier tensor as well, at first with weight zero."""

from __future__ import annotations

import numpy as np

from automl.morphism.architecture import Architecture
from automl.morphism.insert import fresh_norm, he_normal, insert, keyed
from automl.morphism.move import MAX_WIDTH, Move, MoveKind, illegal
from automl.morphism.nodes import RECTIFIERS, Node, Op, conv
from automl.morphism.weights import Array, Edit, Weights

_TARGETS = frozenset({Op.BATCH_NORM, Op.ADD}) | RECTIFIERS
_SOURCES = frozenset({Op.INPUT, Op.ADD, Op.CONCAT, Op.MAX_POOL, Op.AVG_POOL}) | RECTIFIERS


def skip_sites(architecture: Architecture) -> list[int]:
    """Return the image tensors that a skip may end in."""
    return [i for i in range(len(architecture.nodes)) if _is_target(architecture, i)]


def add_skip_options(architecture: Architecture, site: int) -> list[Move]:
    """Return additions of all earlier tensors that can be brought to the site's resolution."""
    return [Move(MoveKind.ADD_SKIP, site, source=i) for i in _sources(architecture, site)]


def concat_skip_options(architecture: Architecture, site: int) -> list[Move]:
    """Return concatenations with the same tensors."""
    return [Move(MoveKind.CONCAT_SKIP, site, source=i) for i in _sources(architecture, site)]


def add_skip(parent: Architecture, move: Move) -> Edit:
    """Return the parent with an earlier tensor added to node `site`.

    The way is a 1x1 convolution (He-initialised from `seed`) and a batch norm of gain zero, which
    writes zeros in training mode too.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    site, width = move.site, parent.shapes()[move.site][0]
    layers, stride = _way(parent, move, strided=True)
    last = move.source if not layers else site + 1
    place = site + len(layers) + 1
    layers += [
        conv(last, width, 1, stride=stride),
        Node(Op.BATCH_NORM, (place,)),
        Node(Op.ADD, (site, place + 1)),
    ]
    nodes, origins = insert(parent, site, layers)

    def changed(_: Weights) -> dict[str, Array]:
        shape = (width, parent.shapes()[move.source][0], 1, 1)
        filters = he_normal(shape, np.random.default_rng(move.seed))
        return keyed(place, {"weight": filters}) | keyed(place + 1, fresh_norm(width, 0.0))

    return Edit(nodes, origins, changed)


def concat_skip(parent: Architecture, move: Move) -> Edit:
    """Return the parent with an earlier tensor beside that of node `site`.

    A 1x1 convolution, the identity on the site's channels and zero on the others, leads back to the
    site's width.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    site, width = move.site, parent.shapes()[move.site][0]
    layers, _ = _way(parent, move, strided=False)
    last = move.source if not layers else site + 1
    place = site + len(layers) + 2
    joined = width + parent.shapes()[move.source][0]
    if joined > MAX_WIDTH:
        raise illegal(move, f"width {joined} is above {MAX_WIDTH}")
    layers += [Node(Op.CONCAT, (site, last)), conv(place - 1, width, 1)]
    nodes, origins = insert(parent, site, layers)

    def changed(_: Weights) -> dict[str, Array]:
        return keyed(place, {"weight": first_channels(width, joined)})

    return Edit(nodes, origins, changed)


def first_channels(width: int, joined: int) -> Array:
    """Return 1x1 filters that copy the first channels and do not see the others."""
    return np.eye(width, joined, dtype=np.float32)[:, :, None, None]


def _sources(architecture: Architecture, site: int) -> list[int]:
    return [index for index in range(site) if _is_source(architecture, index, site)]


def _is_target(architecture: Architecture, index: int) -> bool:
    return architecture.nodes[index].op in _TARGETS and len(architecture.shapes()[index]) == 3


def _is_source(architecture: Architecture, index: int, site: int) -> bool:
    """Return whether an earlier image can be brought to a target that does not read it."""
    shapes = architecture.shapes()
    if architecture.nodes[index].op not in _SOURCES or len(shapes[index]) == 1 or index >= site:
        return False
    before, after = shapes[index][1], shapes[site][1]
    fits = before == after or _pool(before, after) is not None
    return fits and index not in architecture.nodes[site].inputs


def _way(parent: Architecture, move: Move, *, strided: bool) -> tuple[list[Node], int]:
    """Return the pooling that leads from source to site, if one is needed, and a stride.

    Args:
        parent: the architecture that the move is applied to.
        move: says from where to where.
        strided: whether a 1x1 convolution follows, whose stride may stand in for the pooling.
    """
    if not _is_target(parent, move.site) or not _is_source(parent, move.source, move.site):
        raise illegal(move, f"the output of node {move.source} cannot be brought there")
    shapes = parent.shapes()
    before, after = shapes[move.source][1], shapes[move.site][1]
    if before == after:
        return [], 1
    kernel, stride = _pool(before, after) or (1, 1)
    if strided and (before - 1) // stride + 1 == after:
        return [], stride
    return [Node(Op.AVG_POOL, (move.source,), {"kernel": kernel, "stride": stride})], 1


def _pool(before: int, after: int) -> tuple[int, int] | None:
    """Return kernel and stride of a pooling from one image side to a smaller one, if there is one.

    A kernel of 1 subsamples, as a convolution with that stride does.
    """
    if after >= before:
        return None
    stride = before // after
    if stride > 1 and before // stride == after:
        return stride, stride
    stride = -(-before // after)
    return (1, stride) if (before - 1) // stride + 1 == after else None
