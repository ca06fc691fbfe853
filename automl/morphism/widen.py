"""Widening: more channels in a tensor, none of them read yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from automl.morphism.architecture import Architecture, Node, Op, Shape
from automl.morphism.weights import ChannelMap, Edit, Inherit, Recipe

_PASSES_CHANNELS = frozenset(
    {Op.BATCH_NORM, Op.RELU, Op.MAX_POOL, Op.AVG_POOL, Op.GLOBAL_POOL, Op.DROPOUT}
)
_WRITERS = frozenset({Op.CONV, Op.DENSE})


class _RefusedError(Exception):
    """The channels cannot be added without touching the input, the logits or grouped layers."""


def can_widen(architecture: Architecture, site: int) -> bool:
    """Return whether the layer at `site` can write more channels and all else follow."""
    return _spread(architecture, site, _appended(architecture, site, 1, seed=0)) is not None


def widen(parent: Architecture, site: int, width: int, seed: int, noise: float) -> Edit | None:
    """Return the parent with a wider layer at `site`, or None if a constraint forbids it.

    The new channels are copies of randomly chosen ones (Net2Net, arXiv:1511.05641, sec. 3.1), but
    those who read them start with zeros. Two copies are read with different weights, so
    gradients tell them apart; and noise on a copy does not change the function, however large.

    Args:
        parent: the architecture to change.
        site: a conv or dense node, the last one excepted.
        width: its new channels or units, above the present ones.
        seed: chooses what is copied, and the noise.
        noise: new rows move by at most `noise / 2` times the range of their array.
    """
    extra = width - _width(parent.nodes[site])
    maps = _spread(parent, site, _appended(parent, site, extra, seed))
    if maps is None:
        return None
    nodes, recipes = [], {}
    for index, node in enumerate(parent.nodes):
        widened = maps[index] if index in maps and node.op in _WRITERS else None
        nodes.append(node if widened is None else _with_width(node, len(widened.source)))
    for key in parent.weight_shapes():
        recipes[key] = _recipe(parent, key, maps, seed, noise)
    return Edit(replace(parent, nodes=tuple(nodes)), recipes)


def _recipe(
    parent: Architecture, key: str, maps: dict[int, ChannelMap], seed: int, noise: float
) -> Recipe:
    index, name = int(key.split(".")[0]), key.split(".")[1]
    node = parent.nodes[index]
    if node.op not in _WRITERS:  # batch norm: statistics, gains and biases follow their channels
        return Inherit(key, rows=maps.get(index))
    if name == "bias":
        return Inherit(key, rows=maps.get(index))
    columns = maps.get(node.inputs[0])
    return Inherit(key, maps.get(index), columns, noise, (seed, index))


def _width(node: Node) -> int:
    return node.whole("channels" if node.op is Op.CONV else "units")


def _with_width(node: Node, width: int) -> Node:
    name = "channels" if node.op is Op.CONV else "units"
    return replace(node, attributes={**node.attributes, name: width})


def _appended(architecture: Architecture, site: int, extra: int, seed: int) -> ChannelMap:
    width = _width(architecture.nodes[site])
    copied = np.random.default_rng(seed).integers(0, width, extra)
    source = np.concatenate([np.arange(width), copied]).astype(np.int64)
    return ChannelMap(source, np.arange(width + extra) >= width)


def _spread(
    architecture: Architecture, site: int, first: ChannelMap
) -> dict[int, ChannelMap] | None:
    """Return the channel map of every tensor that must change, by node; None if one cannot."""
    spread = _Spread(architecture, architecture.shapes(), architecture.consumers())
    try:
        spread.require(site, first)
        while spread.pending or spread.joins:
            spread.step()
    except _RefusedError:
        return None
    return spread.maps


@dataclass(slots=True)
class _Spread:
    """The tensors reached from the widened layer, forwards and, through additions, backwards."""

    architecture: Architecture
    shapes: Sequence[Shape]
    consumers: Sequence[Sequence[int]]
    maps: dict[int, ChannelMap] = field(default_factory=dict)
    pending: list[int] = field(default_factory=list)
    joins: set[int] = field(default_factory=set)

    def require(self, index: int, channels: ChannelMap) -> None:
        """Demand that a node's output gets new channels at these places.

        What they copy may differ between the terms of a sum: nothing reads them.
        """
        known = self.maps.get(index)
        if known is not None:
            if not np.array_equal(known.is_new, channels.is_new):
                raise _RefusedError
            return
        self.maps[index] = channels
        self.pending.append(index)

    def step(self) -> None:
        """Carry one node's channels to its readers and back to what it reads; joins come last."""
        if not self.pending:
            first = min(self.joins)
            self.joins.remove(first)
            self._join(first, self.architecture.nodes[first])
            return
        index = self.pending.pop()
        self._backwards(index, self.architecture.nodes[index])
        for reader in self.consumers[index]:
            self._forwards(reader, index)

    def _backwards(self, index: int, node: Node) -> None:
        if node.op in _WRITERS:
            is_last = index == len(self.architecture.nodes) - 1
            if is_last or (node.op is Op.CONV and node.whole("groups") > 1):
                raise _RefusedError
        elif node.op in _PASSES_CHANNELS or node.op is Op.ADD:
            for source in node.inputs:
                self.require(source, self.maps[index])
        elif node.op is Op.CONCAT:
            self._split(node, self.maps[index])
        elif node.op is Op.FLATTEN:
            if node.inputs[0] not in self.maps:  # reached through an addition of vectors
                raise _RefusedError
        else:
            raise _RefusedError  # the image has the channels it has

    def _forwards(self, reader: int, index: int) -> None:
        node, channels = self.architecture.nodes[reader], self.maps[index]
        if node.op in _WRITERS:
            if node.op is Op.CONV and node.whole("groups") > 1:
                raise _RefusedError
        elif node.op is Op.FLATTEN:
            pixels = int(np.prod(self.shapes[index][1:]))
            places = channels.source[:, None] * pixels + np.arange(pixels)
            self.require(reader, ChannelMap(places.ravel(), np.repeat(channels.is_new, pixels)))
        elif node.op is Op.CONCAT:
            self.joins.add(reader)
        else:
            self.require(reader, channels)

    def _join(self, reader: int, node: Node) -> None:
        """Derive a concatenation's channels from those of its inputs."""
        known = [self.maps.get(source) for source in node.inputs]
        sources, new, offset = [], [], 0
        for source, channels in zip(node.inputs, known, strict=True):
            width = self.shapes[source][0]
            kept = channels or ChannelMap(np.arange(width), np.zeros(width, dtype=np.bool_))
            sources.append(kept.source + offset)
            new.append(kept.is_new)
            offset += width
        self.require(reader, ChannelMap(np.concatenate(sources), np.concatenate(new)))

    def _split(self, node: Node, channels: ChannelMap) -> None:
        """Hand a concatenation's channels back to its inputs; copies stay within one input."""
        bounds = np.cumsum([self.shapes[source][0] for source in node.inputs])
        last_kept = np.cumsum(~channels.is_new) - 1  # a new channel joins the one it stands behind
        owner = np.searchsorted(bounds, last_kept, side="right")
        for place, source in enumerate(node.inputs):
            width = self.shapes[source][0]
            mine = owner == place
            if source in self.maps or np.any(channels.is_new[mine]):
                start = int(bounds[place]) - width
                copied = (channels.source[mine] - start) % width
                self.require(source, ChannelMap(copied, channels.is_new[mine]))
