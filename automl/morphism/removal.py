"""Removing layers, skips and blocks; what is left keeps its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from automl.morphism.architecture import Architecture
from automl.morphism.insert import is_idle
from automl.morphism.move import Move, MoveKind, illegal
from automl.morphism.nodes import JOINS, RECTIFIERS, Node, Op
from automl.morphism.resize import RefusedError, resized_arrays, resized_nodes, spread_forwards
from automl.morphism.weights import Array, Edit, Weights

_LAYERS = frozenset({Op.CONV, Op.DENSE})
_GOES_ALONG = (frozenset({Op.BATCH_NORM}), RECTIFIERS)  # what belongs to the layer before it


def remove_sites(architecture: Architecture) -> list[int]:
    """Return the convolutions and dense layers whose output has the shape of their input."""
    return [i for i in range(len(architecture.nodes) - 1) if _is_spare(architecture, i)]


def remove_options(architecture: Architecture, site: int) -> list[Move]:
    """Return the removal of a layer."""
    del architecture
    return [Move(MoveKind.REMOVE, site)]


def remove(parent: Architecture, move: Move) -> Edit:
    """Return the parent without a convolution or dense layer, its readers reading its input.

    Its batch norm goes too, and the ReLU or ReLU6 behind where that would change nothing.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    site = move.site
    if not _is_spare(parent, site):
        raise illegal(move, "its output has not the shape of its input")
    source, last = parent.nodes[site].inputs[0], site
    for ops in _GOES_ALONG:
        readers = parent.consumers()[last]
        op = parent.nodes[readers[0]].op
        follows = len(readers) == 1 and op in ops
        if follows and (op is Op.BATCH_NORM or is_idle(op, parent, source)):
            last = readers[0]
    return _swept(parent.nodes, {last: source}, lambda _: {}, move)


def _is_spare(architecture: Architecture, index: int) -> bool:
    node, shapes = architecture.nodes[index], architecture.shapes()
    return node.op in _LAYERS and shapes[index] == shapes[node.inputs[0]]


def drop_sites(architecture: Architecture) -> list[int]:
    """Return the joins: each has an input to spare."""
    return [index for index, node in enumerate(architecture.nodes) if node.op in JOINS]


def drop_options(architecture: Architecture, site: int) -> list[Move]:
    """Return the drop of each of a join's inputs."""
    sources = sorted(set(architecture.nodes[site].inputs))
    return [Move(MoveKind.DROP, site, source=source) for source in sources]


def drop(parent: Architecture, move: Move) -> Edit:
    """Return the parent where a join no longer reads one of its inputs.

    What nobody reads then is gone too: dropping a shortcut leaves a plain block, dropping the
    branch beside it removes the block. A concatenation's readers lose the channels, and a join of
    one tensor makes way for it.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    site, node = move.site, parent.nodes[move.site]
    if node.op not in JOINS or move.source not in node.inputs:
        raise illegal(move, f"node {move.source} is not one of its joined inputs")
    place = node.inputs.index(move.source)
    left = node.inputs[:place] + node.inputs[place + 1 :]
    maps = {}
    if node.op is Op.CONCAT:
        widths = [parent.shapes()[source][0] for source in node.inputs]
        segments = tuple((w, 0 if i == place else w) for i, w in enumerate(widths))
        try:
            maps = spread_forwards(parent, site, segments)
        except RefusedError as error:
            raise illegal(move, "the layers around it cannot follow") from error
    nodes = resized_nodes(parent, maps)
    nodes[site] = node.reading(left)
    gone = {site: left[0]} if len(left) == 1 else {}

    def changed(weights: Weights) -> dict[str, Array]:
        def picks(_before: int, _after: int) -> npt.NDArray[np.int64]:
            return np.zeros(0, np.int64)

        return resized_arrays(parent, maps, picks, weights)

    return _swept(nodes, gone, changed, move)


def _swept(
    nodes: Sequence[Node],
    replaced: Mapping[int, int],
    changed: Callable[[Weights], dict[str, Array]],
    move: Move,
) -> Edit:
    """Return the edit that has only the nodes which lead to the logits.

    Args:
        nodes: the changed graph in the parent's numbering.
        replaced: nodes whose readers read another one instead.
        changed: arrays by the parent's node indices.
        move: for the message.
    """
    inputs = [[replaced.get(source, source) for source in node.inputs] for node in nodes]
    for index, node in enumerate(nodes):
        is_new = inputs[index] != list(node.inputs)
        if is_new and node.op in JOINS and len(set(inputs[index])) < len(inputs[index]):
            raise illegal(move, f"node {index} would join a tensor with itself")
    needed = {len(nodes) - 1}
    for index in range(len(nodes) - 1, 0, -1):
        if index in needed:
            needed.update(inputs[index])
    if 0 not in needed:
        raise illegal(move, "the image would not be read")
    origins = sorted(needed)
    place = {old: new for new, old in enumerate(origins)}
    kept = [nodes[old].reading(tuple([place[i] for i in inputs[old]])) for old in origins]

    def renamed(weights: Weights) -> dict[str, Array]:
        arrays = {}
        for key, array in changed(weights).items():
            index, name = key.split(".")
            if int(index) in place:
                arrays[f"{place[int(index)]}.{name}"] = array
        return arrays

    return Edit(kept, origins, renamed)
