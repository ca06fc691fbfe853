"""Architectures: frozen graphs of layers without weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from automl.errors import ConfigError
from automl.morphism.canonical import canonical_order
from automl.morphism.genotype import (
    GENOTYPE_SCHEMA,
    damaged,
    read_document,
    read_nodes,
    write_nodes,
)
from automl.morphism.nodes import (
    BATCH_NORM_EPS,
    BATCH_NORM_MOMENTUM,
    JOINS,
    Facts,
    Node,
    Op,
    Shape,
    infer,
)
from automl.morphism.summary import one_line

__all__ = [
    "BATCH_NORM_EPS",
    "BATCH_NORM_MOMENTUM",
    "GENOTYPE_SCHEMA",
    "Architecture",
    "Node",
    "Op",
    "Shape",
]

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Architecture:
    """A graph of layers from an image to logits.

    `nodes[0]` is the INPUT, which normalises; `nodes[-1]` is the DENSE of the logits; nodes are in
    topological order and each of them is used. The class has no slots because what follows from
    the nodes is kept once it has been computed.

    Attributes:
        input_size: height and width of the image in pixels.
        input_channels: channels of the image.
        nodes: the layers.

    Raises:
        ConfigError: on construction, if the nodes are no such graph.
    """

    input_size: int
    input_channels: int
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        assert self.facts  # checks the graph

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields: what follows from them does not travel between processes."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].integer("units")

    def shapes(self) -> tuple[Shape, ...]:
        """Return each node's output shape without the batch: (C, H, W) or (C,)."""
        return self._shapes

    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """Return for each node the nodes that read it, a node once per reading."""
        return self._consumers

    def weight_shapes(self) -> dict[str, Shape]:
        """Return the shape of every stored array by its key `<node index>.<name>`."""
        return {
            f"{index}.{name}": shape
            for index, facts in enumerate(self.facts)
            for name, shape in facts.weights
        }

    @cached_property
    def parameters(self) -> int:
        """Learned scalars; the running statistics of batch norms are not learned."""
        return sum([facts.parameters for facts in self.facts])

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of the convolutions and dense layers for one image."""
        return sum([facts.macs for facts in self.facts])

    @cached_property
    def activation_bytes(self) -> int:
        """Bytes of all nodes' outputs for one image in float32, the normalised image included."""
        return _FLOAT_BYTES * sum([facts.elements for facts in self.facts])

    @cached_property
    def depth(self) -> int:
        """Convolutions and dense layers on the longest path."""
        depths: list[int] = []
        for node in self.nodes:
            before = max([depths[source] for source in node.inputs], default=0)
            depths.append(before + (node.op is Op.CONV or node.op is Op.DENSE))
        return depths[-1]

    @cached_property
    def dropout(self) -> float | None:
        """The highest rate of its dropout nodes; None if it has none."""
        rates = [float(node.attributes["rate"]) for node in self.nodes if node.op is Op.DROPOUT]
        return max(rates, default=None)

    def summary(self) -> str:
        """Return one line for people."""
        return one_line(self)

    def canonical(self) -> tuple[Architecture, dict[int, int]]:
        """Return the same graph in canonical order, and each old index's new index."""
        order = self.order
        if self._is_canonical(order):
            return self, {index: index for index in order}
        place = [0] * len(order)
        for new, old in enumerate(order):
            place[old] = new
        nodes = []
        for old in order:
            node = self.nodes[old]
            inputs = tuple([place[source] for source in node.inputs])
            if node.op is Op.ADD:
                inputs = tuple(sorted(inputs))
            nodes.append(node if inputs == node.inputs else node.reading(inputs))
        child = self._renumbered(tuple(nodes), tuple([self.facts[old] for old in order]))
        return child, dict(enumerate(place))

    def genotype(self) -> str:
        """Return versioned JSON text, equal for graphs that differ in node order only."""
        return self._genotype

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the genotype, in hexadecimal."""
        return hashlib.sha256(self._genotype.encode()).hexdigest()

    @classmethod
    def from_genotype(cls, text: str) -> Architecture:
        """Return the canonical architecture of a genotype; see `parse`."""
        return cls.parse(text).canonical()[0]

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Return the architecture of a genotype with its nodes in the order that they stand there.

        Raises:
            NewerSchemaError: a newer version wrote it.
            DamagedDataError: it is not a genotype.
        """
        document = read_document(text)
        try:
            channels, size, nodes = read_nodes(document)
            return cls(size, channels, nodes)
        except (ValueError, TypeError, KeyError, ConfigError) as error:
            raise damaged(text, error) from error

    @cached_property
    def facts(self) -> tuple[Facts, ...]:
        """Outputs and costs of each node."""
        return _checked(self.nodes, (self.input_channels, self.input_size, self.input_size))

    @cached_property
    def _shapes(self) -> tuple[Shape, ...]:
        return tuple([facts.shape for facts in self.facts])

    @cached_property
    def _consumers(self) -> tuple[tuple[int, ...], ...]:
        readers: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for source in node.inputs:
                readers[source].append(index)
        return tuple([tuple(found) for found in readers])

    @cached_property
    def order(self) -> Sequence[int]:
        """Present indices of the nodes in canonical order."""
        return canonical_order(
            [node.layer.label for node in self.nodes],
            [node.inputs for node in self.nodes],
            [node.op is Op.ADD for node in self.nodes],
        )

    @cached_property
    def _genotype(self) -> str:
        graph, _ = self.canonical()
        return write_nodes(graph.input_channels, graph.input_size, graph.nodes)

    def _is_canonical(self, order: Sequence[int]) -> bool:
        return order == list(range(len(order))) and all(
            node.inputs == tuple(sorted(node.inputs)) for node in self.nodes if node.op is Op.ADD
        )

    def _renumbered(self, nodes: tuple[Node, ...], facts: tuple[Facts, ...]) -> Architecture:
        """Return a renumbering of this graph, known to be canonical and free of faults."""
        child: Architecture = object.__new__(Architecture)
        known = {"input_size": self.input_size, "input_channels": self.input_channels}
        child.__dict__.update(known, nodes=nodes, facts=facts, order=list(range(len(nodes))))
        return child


def _checked(nodes: Sequence[Node], image: Shape) -> tuple[Facts, ...]:
    if len(nodes) < 2 or nodes[0].op is not Op.INPUT or nodes[-1].op is not Op.DENSE:
        raise ConfigError("An architecture starts with an input node and ends with a dense node.")
    facts: list[Facts] = []
    shapes: list[Shape] = []
    used: set[int] = set()
    for index, node in enumerate(nodes):
        if reason := _node_fault(index, node):
            raise _invalid(index, reason)
        read = tuple([shapes[source] for source in node.inputs]) if index else (image,)
        found = infer(node.layer, read)
        if found is None:
            raise _invalid(index, f"{node.op} cannot read shapes {list(read)}")
        facts.append(found)
        shapes.append(found.shape)
        used.update(node.inputs)
    if len(used) < len(nodes) - 1:
        unread = next(index for index in range(len(nodes)) if index not in used)
        raise _invalid(unread, "no node reads it")
    return tuple(facts)


def _node_fault(index: int, node: Node) -> str:
    inputs = node.inputs
    for source in inputs:
        if not 0 <= source < index:
            return f"inputs {inputs} are not earlier nodes"
    expected = 1 if index else 0
    if (len(inputs) < 2) if node.op in JOINS else (len(inputs) != expected):
        return f"{node.op} has {len(inputs)} inputs"
    if (node.op is Op.INPUT) != (index == 0):
        return "only the first node is an input"
    return node.layer.fault


def _invalid(index: int, reason: str) -> ConfigError:
    return ConfigError(f"Node {index} of the architecture is invalid: {reason}.")
