"""Tensors with more or fewer channels, and all layers that have to follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from automl.morphism.architecture import Architecture
from automl.morphism.move import Move, illegal
from automl.morphism.nodes import RECTIFIERS, Node, Op
from automl.morphism.weights import Array, Edit, Weights

Segments = tuple[tuple[int, int], ...]
"""Runs of channels that make up a tensor: how many before, how many after. A run that grows gets
its new channels at its end; which ones a run loses is for the weights to say."""

Picks = Callable[[int, int], npt.NDArray[np.int64]]
"""Given a run's lengths before and after: for each channel after, its place in the run before."""

_PASSES_CHANNELS = RECTIFIERS | {
    Op.BATCH_NORM, Op.MAX_POOL, Op.AVG_POOL, Op.GLOBAL_POOL, Op.DROPOUT,
}  # fmt: skip
_WRITERS = frozenset({Op.CONV, Op.DENSE})


class RefusedError(Exception):
    """The channels cannot change without touching the input, the logits or grouped layers."""


def width_of(node: Node) -> int:
    """Return the channels of a convolution or the units of a dense layer."""
    return node.integer("channels" if node.op is Op.CONV else "units")


def is_depthwise(architecture: Architecture, index: int) -> bool:
    """Return whether a node is a convolution that handles each channel by itself."""
    node = architecture.nodes[index]
    if node.op is not Op.CONV or node.integer("groups") == 1:
        return False
    read = architecture.shapes()[node.inputs[0]][0]
    return node.integer("groups") == node.integer("channels") == read


def spread(architecture: Architecture, site: int, first: Segments) -> dict[int, Segments]:
    """Return the channels of every tensor that changes if those of node `site` do, by node.

    Raises:
        RefusedError: a tensor would have to change that cannot.
    """
    reached = _Spread(architecture)
    reached.require(site, first)
    return reached.finished()


def own_width(parent: Architecture, move: Move) -> int:
    """Return the width of the layer whose width a move changes.

    Raises:
        SearchError: the node has none.
    """
    node = parent.nodes[move.site]
    if node.op not in _WRITERS:
        raise illegal(move, f"a {node.op} has no width of its own")
    return width_of(node)


def spread_of_width(parent: Architecture, move: Move, width: int) -> dict[int, Segments]:
    """Return the same as `spread` for a layer that gets the move's width instead of `width`.

    Raises:
        SearchError: a tensor would have to change that cannot.
    """
    try:
        return spread(parent, move.site, ((width, move.width),))
    except RefusedError as error:
        raise illegal(move, "the layers around it cannot follow") from error


def spread_forwards(architecture: Architecture, site: int, first: Segments) -> dict[int, Segments]:
    """Return the same as `spread` where what `site` reads does not change.

    Raises:
        RefusedError: a tensor would have to change that cannot.
    """
    reached = _Spread(architecture)
    reached.maps[site] = first
    reached.carry(site)
    return reached.finished()


def resized_nodes(parent: Architecture, maps: Mapping[int, Segments]) -> list[Node]:
    """Return the parent's nodes, those that write changed tensors with other widths."""
    nodes = list(parent.nodes)
    for index, segments in maps.items():
        node = parent.nodes[index]
        width = sum(after for _, after in segments)
        if node.op is Op.DENSE:
            nodes[index] = node.having(units=width)
        elif is_depthwise(parent, index):
            nodes[index] = node.having(channels=width, groups=width)
        elif node.op is Op.CONV:
            nodes[index] = node.having(channels=width)
    return nodes


def resized(
    parent: Architecture,
    maps: Mapping[int, Segments],
    changed: Callable[[Weights], dict[str, Array]],
) -> Edit:
    """Return the edit that gives tensors other channels."""
    return Edit(resized_nodes(parent, maps), range(len(parent.nodes)), changed)


@dataclass(frozen=True, slots=True, eq=False)
class ChannelMap:
    """The channels of a changed tensor.

    Attributes:
        source: for each channel of the child, the parent's channel it is or copies, int64.
        is_new: whether the channel is a copy that no layer of the parent reads, bool.
    """

    source: npt.NDArray[np.int64]
    is_new: npt.NDArray[np.bool_]


def channel_map(segments: Segments, picks: Picks) -> ChannelMap:
    """Return where each channel of a changed tensor comes from."""
    sources, new, start = [], [], 0
    for before, after in segments:
        places = np.arange(before) if before == after else picks(before, after)
        sources.append(start + places)
        new.append(np.arange(after) >= before)
        start += before
    return ChannelMap(np.concatenate(sources), np.concatenate(new))


def resized_arrays(
    parent: Architecture, maps: Mapping[int, Segments], picks: Picks, weights: Weights
) -> dict[str, Array]:
    """Return the arrays of all layers that write or read changed tensors.

    Filters, biases and batch norms follow the channels they belong to; what reads new channels
    starts at zero.
    """
    channels = {index: channel_map(segments, picks) for index, segments in maps.items()}
    arrays: dict[str, Array] = {}
    for key in parent.weight_shapes():
        index, name = int(key.split(".")[0]), key.split(".")[1]
        node, rows = parent.nodes[index], channels.get(index)
        columns = None
        if name == "weight" and node.op in _WRITERS and not is_depthwise(parent, index):
            columns = channels.get(node.inputs[0])
        if rows is None and columns is None:
            continue
        array = weights[key]
        if rows is not None:
            array = array[rows.source]
        if columns is not None:
            array = array[:, columns.source]
            array[:, columns.is_new] = 0.0
        arrays[key] = array
    return arrays


@dataclass(slots=True)
class _Spread:
    """The tensors reached from the changed one, forwards and, through additions, backwards."""

    architecture: Architecture
    maps: dict[int, Segments] = field(default_factory=dict)
    pending: list[int] = field(default_factory=list)
    joins: set[int] = field(default_factory=set)

    def require(self, index: int, segments: Segments) -> None:
        """Demand that a node's output changes in these places.

        What new channels copy may differ between the terms of a sum: nothing reads them.
        """
        known = self.maps.get(index)
        if known is None:
            self.maps[index] = segments
            self.pending.append(index)
        elif _places(known) != _places(segments):
            raise RefusedError

    def finished(self) -> dict[int, Segments]:
        """Reach everything; concatenations wait until their other inputs are settled."""
        while self.pending or self.joins:
            if self.pending:
                index = self.pending.pop()
                self._backwards(index, self.architecture.nodes[index])
                self.carry(index)
            else:
                join = min(self.joins)
                self.joins.remove(join)
                self._join(join)
        return self.maps

    def carry(self, index: int) -> None:
        """Hand a node's channels to its readers."""
        for reader in self.architecture.consumers()[index]:
            self._forwards(reader, index)

    def _backwards(self, index: int, node: Node) -> None:
        if node.op in _WRITERS and not is_depthwise(self.architecture, index):
            is_last = index == len(self.architecture.nodes) - 1
            if is_last or (node.op is Op.CONV and node.integer("groups") > 1):
                raise RefusedError
        elif node.op in _PASSES_CHANNELS or node.op is Op.ADD or node.op is Op.CONV:
            for source in node.inputs:
                self.require(source, self.maps[index])
        elif node.op is Op.CONCAT:
            self._split(node, self.maps[index])
        elif node.op is Op.INPUT or node.inputs[0] not in self.maps:
            raise RefusedError  # the image has the channels it has; a flattening cannot be undone

    def _forwards(self, reader: int, index: int) -> None:
        node, segments = self.architecture.nodes[reader], self.maps[index]
        if node.op is Op.FLATTEN:
            self.require(reader, self._flattened(index, segments))
        elif node.op is Op.CONCAT:
            self.joins.add(reader)
        elif node.op not in _WRITERS or is_depthwise(self.architecture, reader):
            self.require(reader, segments)
        elif node.op is Op.CONV and node.integer("groups") > 1:
            raise RefusedError

    def _flattened(self, index: int, segments: Segments) -> Segments:
        """Return the elements of an image's channels, each one's pixels side by side."""
        _, height, width = self.architecture.shapes()[index]
        pixels = height * width
        return tuple((before * pixels, after * pixels) for before, after in segments)

    def _join(self, reader: int) -> None:
        """Derive a concatenation's channels from those of its inputs."""
        segments: list[tuple[int, int]] = []
        for source in self.architecture.nodes[reader].inputs:
            width = self.architecture.shapes()[source][0]
            segments += self.maps.get(source, ((width, width),))
        self.require(reader, tuple(segments))

    def _split(self, node: Node, segments: Segments) -> None:
        """Hand a concatenation's channels back to its inputs.

        New channels belong to the input whose channel they stand behind. A run that loses channels
        must lie within one input, as it does not say which ones.
        """
        shapes = self.architecture.shapes()
        bounds = list(accumulate(shapes[source][0] for source in node.inputs))
        parts: list[list[tuple[int, int]]] = [[] for _ in node.inputs]
        place, start = 0, 0
        for before, after in segments:
            end = start + before
            if after < before and end > bounds[place]:
                raise RefusedError
            while end > bounds[place]:
                kept = bounds[place] - start
                parts[place].append((kept, kept))
                start, place = bounds[place], place + 1
            rest = end - start
            parts[place].append((rest, rest + after - before))
            start = end
            while place + 1 < len(bounds) and start == bounds[place]:
                place += 1
        for source, part in zip(node.inputs, parts, strict=True):
            if source in self.maps or any(before != after for before, after in part):
                self.require(source, tuple(part))


def _places(segments: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return where channels are added, (place, 0, how many), or lost, (place, before, after)."""
    found, start = [], 0
    for before, after in segments:
        start += before
        if after > before:
            found.append((start, 0, after - before))
        elif after < before:
            found.append((start - before, before, after))
    return found
