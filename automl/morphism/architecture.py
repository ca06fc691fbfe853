"""Architectures: frozen graphs of layers without weights, and their genotypes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from automl.errors import ConfigError, DamagedDataError, NewerSchemaError
from automl.morphism.canonical import canonical_order

GENOTYPE_SCHEMA = 1
BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.1

Shape = tuple[int, ...]


class Op(StrEnum):
    """What a node computes."""

    INPUT = "input"
    CONV = "conv"
    BATCH_NORM = "batch_norm"
    RELU = "relu"
    MAX_POOL = "max_pool"
    AVG_POOL = "avg_pool"
    GLOBAL_POOL = "global_pool"
    FLATTEN = "flatten"
    DENSE = "dense"
    DROPOUT = "dropout"
    ADD = "add"
    CONCAT = "concat"


ATTRIBUTES: Mapping[Op, tuple[str, ...]] = {
    Op.CONV: ("bias", "channels", "groups", "kernel", "stride"),
    Op.MAX_POOL: ("kernel", "stride"),
    Op.AVG_POOL: ("kernel", "stride"),
    Op.DENSE: ("units",),
    Op.DROPOUT: ("rate",),
}
_MANY_INPUTS = frozenset({Op.ADD, Op.CONCAT})
_ANY_SHAPE = frozenset({Op.BATCH_NORM, Op.RELU, Op.DROPOUT})


@dataclass(frozen=True, slots=True)
class Node:
    """One layer.

    Attributes:
        op: what it computes.
        inputs: indices of the earlier nodes it reads.
        attributes: its settings. conv: channels, kernel (odd; zero padding kernel // 2), stride,
            groups, bias (0 or 1); max_pool and avg_pool: kernel, stride (no padding, floor);
            dense: units (always with bias); dropout: rate; the others have none.
    """

    op: Op
    inputs: tuple[int, ...] = ()
    attributes: Mapping[str, int | float] = field(default_factory=dict, hash=False)

    def whole(self, name: str) -> int:
        """Return an attribute that is a whole number."""
        return int(self.attributes[name])


@dataclass(frozen=True, slots=True)
class Architecture:
    """A graph of layers from an image to logits.

    `nodes[0]` is the INPUT, which normalises; `nodes[-1]` is the DENSE of the logits; nodes are in
    topological order and each of them is used.

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
        _check_graph(self.nodes)
        self.shapes()

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].whole("units")

    def shapes(self) -> tuple[Shape, ...]:
        """Return each node's output shape without the batch: (C, H, W) or (C,)."""
        shapes: list[Shape] = []
        for index, node in enumerate(self.nodes):
            if node.op is Op.INPUT:
                shapes.append((self.input_channels, self.input_size, self.input_size))
                continue
            shape = _output_shape(node, [shapes[source] for source in node.inputs])
            if shape is None or min(shape) < 1:
                found = [shapes[source] for source in node.inputs]
                raise _invalid(index, f"{node.op} cannot read shapes {found}")
            shapes.append(shape)
        return tuple(shapes)

    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """Return for each node the nodes that read it, a node once per reading."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for source in node.inputs:
                readers[source].append(index)
        return tuple(tuple(found) for found in readers)

    def weight_shapes(self) -> dict[str, Shape]:
        """Return the shape of every stored array by its key `<node index>.<name>`."""
        shapes = self.shapes()
        weights: dict[str, Shape] = {}
        for index, node in enumerate(self.nodes):
            if node.op is Op.CONV:
                channels, kernel = node.whole("channels"), node.whole("kernel")
                fan_in = shapes[node.inputs[0]][0] // node.whole("groups")
                weights[f"{index}.weight"] = (channels, fan_in, kernel, kernel)
                if node.whole("bias"):
                    weights[f"{index}.bias"] = (channels,)
            elif node.op is Op.DENSE:
                weights[f"{index}.weight"] = (node.whole("units"), shapes[node.inputs[0]][0])
                weights[f"{index}.bias"] = (node.whole("units"),)
            elif node.op is Op.BATCH_NORM:
                for name in ("weight", "bias", "running_mean", "running_var"):
                    weights[f"{index}.{name}"] = (shapes[index][0],)
        return weights

    @property
    def parameters(self) -> int:
        """Learned scalars; the running statistics of batch norms are not learned."""
        return sum(
            math.prod(shape)
            for key, shape in self.weight_shapes().items()
            if ".running_" not in key
        )

    @property
    def flops(self) -> int:
        """Multiply-adds of the convolutions and dense layers for one image."""
        shapes = self.shapes()
        total = 0
        for key, shape in self.weight_shapes().items():
            index, name = key.split(".")
            if name == "weight" and self.nodes[int(index)].op is not Op.BATCH_NORM:
                total += math.prod(shape) * math.prod(shapes[int(index)][1:])
        return total

    @property
    def depth(self) -> int:
        """Convolutions and dense layers on the longest path."""
        depths: list[int] = []
        for node in self.nodes:
            before = max((depths[source] for source in node.inputs), default=0)
            depths.append(before + (node.op in {Op.CONV, Op.DENSE}))
        return depths[-1]

    def summary(self) -> str:
        """Return one line for people."""
        layers = []
        for node in self.nodes:
            if node.op is Op.CONV:
                stride = f"/{node.whole('stride')}" if node.whole("stride") > 1 else ""
                kernel = node.whole("kernel")
                layers.append(f"conv{kernel}x{kernel}-{node.whole('channels')}{stride}")
            elif node.op in {Op.MAX_POOL, Op.AVG_POOL}:
                layers.append(f"pool/{node.whole('stride')}")
            elif node.op is Op.DENSE:
                layers.append(f"dense-{node.whole('units')}")
            elif node.op in {Op.ADD, Op.CONCAT, Op.GLOBAL_POOL, Op.FLATTEN}:
                layers.append(str(node.op))
        size = f"{self.parameters:,} parameters, {self.flops / 1e6:.1f} M multiply-adds"
        return f"{self.input_size} px: {' '.join(layers)}; {size}"

    def canonical(self) -> tuple[Architecture, dict[int, int]]:
        """Return the same graph in canonical order, and each old index's new index."""
        labels = [(str(node.op), tuple(sorted(node.attributes.items()))) for node in self.nodes]
        inputs = [node.inputs for node in self.nodes]
        order = canonical_order(labels, inputs, [node.op is Op.ADD for node in self.nodes])
        new_index = {old: new for new, old in enumerate(order)}
        nodes = []
        for old in order:
            sources = tuple(new_index[source] for source in self.nodes[old].inputs)
            sources = tuple(sorted(sources)) if self.nodes[old].op is Op.ADD else sources
            nodes.append(replace(self.nodes[old], inputs=sources))
        return replace(self, nodes=tuple(nodes)), new_index

    def genotype(self) -> str:
        """Return versioned JSON text, equal for graphs that differ in node order only."""
        graph, _ = self.canonical()
        document = {
            "schema": GENOTYPE_SCHEMA,
            "input": [graph.input_channels, graph.input_size, graph.input_size],
            "nodes": [
                [str(node.op), list(node.inputs), dict(node.attributes)] for node in graph.nodes
            ],
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_genotype(cls, text: str) -> Architecture:
        """Return the canonical architecture of a genotype.

        Raises:
            NewerSchemaError: a newer version wrote it.
            DamagedDataError: it is not a genotype.
        """
        try:
            document = json.loads(text)
            schema = int(document["schema"])
            if schema <= GENOTYPE_SCHEMA:
                return _parse(document).canonical()[0]
        except (ValueError, TypeError, KeyError, ConfigError) as error:
            raise DamagedDataError(
                f"{text[:80]!r} is not a genotype: {error}", "restore the study's log"
            ) from error
        raise NewerSchemaError(
            f"The genotype has schema {schema}; this version reads up to {GENOTYPE_SCHEMA}.",
            "upgrade the platform",
        )


def _parse(document: Mapping[str, Any]) -> Architecture:
    channels, height, width = (int(value) for value in document["input"])
    if height != width:
        raise ValueError(f"the input is {height} x {width}, not square")
    nodes = tuple(
        Node(Op(op), tuple(int(source) for source in inputs), dict(attributes))
        for op, inputs, attributes in document["nodes"]
    )
    return Architecture(input_size=height, input_channels=channels, nodes=nodes)


def _invalid(index: int, reason: str) -> ConfigError:
    return ConfigError(f"Node {index} of the architecture is invalid: {reason}.")


def _check_graph(nodes: Sequence[Node]) -> None:
    if len(nodes) < 2 or nodes[0].op is not Op.INPUT or nodes[-1].op is not Op.DENSE:
        raise ConfigError("An architecture starts with an input node and ends with a dense node.")
    used = {source for node in nodes for source in node.inputs}
    for index, node in enumerate(nodes):
        reason = _node_fault(index, node)
        if not reason and index not in used and index != len(nodes) - 1:
            reason = "no node reads it"
        if reason:
            raise _invalid(index, reason)


def _node_fault(index: int, node: Node) -> str:
    if any(not 0 <= source < index for source in node.inputs):
        return f"inputs {node.inputs} are not earlier nodes"
    count = len(node.inputs)
    expected = 0 if index == 0 else 1
    if (count < 2) if node.op in _MANY_INPUTS else (count != expected):
        return f"{node.op} has {count} inputs"
    if (node.op is Op.INPUT) != (index == 0):
        return "only the first node is an input"
    if tuple(sorted(node.attributes)) != ATTRIBUTES.get(node.op, ()):
        return f"{node.op} has attributes {sorted(node.attributes)}"
    for name, value in node.attributes.items():
        if name == "rate":
            if not 0 <= value < 1:
                return f"rate is {value}"
        elif not isinstance(value, int) or value < (0 if name == "bias" else 1):
            return f"{name} is {value}"
    if node.op is Op.CONV and (node.whole("kernel") % 2 == 0 or node.whole("bias") > 1):
        return "kernel is even or bias is neither 0 nor 1"
    return ""


def _output_shape(node: Node, shapes: Sequence[Shape]) -> Shape | None:
    """Return the shape a node computes, None if it cannot read its inputs."""
    first = shapes[0]
    is_image = len(first) == 3
    if node.op in _ANY_SHAPE:
        return first
    if node.op is Op.DENSE:
        return None if is_image else (node.whole("units"),)
    if node.op is Op.ADD:
        return first if all(shape == first for shape in shapes) else None
    if node.op is Op.CONCAT:
        alike = all(shape[1:] == first[1:] for shape in shapes)
        return (sum(shape[0] for shape in shapes), *first[1:]) if alike else None
    if not is_image:
        return None
    if node.op is Op.GLOBAL_POOL:
        return (first[0],)
    if node.op is Op.FLATTEN:
        return (math.prod(first),)
    kernel, stride = node.whole("kernel"), node.whole("stride")
    if node.op is Op.CONV:
        channels, groups = node.whole("channels"), node.whole("groups")
        if channels % groups or first[0] % groups:
            return None
        return (channels, *((side - 1) // stride + 1 for side in first[1:]))
    return (first[0], *((side - kernel) // stride + 1 for side in first[1:]))
