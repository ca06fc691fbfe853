"""Layers: what a node of an architecture is, what it makes of its inputs, and what it costs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.1

Shape = tuple[int, ...]
Value = int | float


class Op(StrEnum):
    """Operation of a node."""

    INPUT = "input"
    CONV = "conv"
    BATCH_NORM = "batch_norm"
    RELU = "relu"
    RELU6 = "relu6"
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
JOINS = frozenset({Op.ADD, Op.CONCAT})
RECTIFIERS = frozenset({Op.RELU, Op.RELU6})  # their outputs have no negative values
_ANY_SHAPE = frozenset({Op.INPUT, Op.BATCH_NORM, Op.DROPOUT}) | RECTIFIERS


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Facts that nodes of the same operation and attributes share; computed once.

    Attributes:
        op: what the layer computes.
        attributes: its settings, whole numbers but for `rate`.
        fault: what is wrong with the attributes, empty if nothing is.
        label: sorts layers; equal for equal layers.
        text: what stands before and behind a node's inputs in a genotype.
    """

    op: Op
    attributes: Mapping[str, Value]
    fault: str
    label: tuple[str, tuple[tuple[str, Value], ...]]
    text: tuple[str, str]

    def integer(self, name: str) -> int:
        """Return an attribute that is an integer."""
        return int(self.attributes[name])


@dataclass(frozen=True, slots=True)
class Node:
    """One layer of a graph.

    Attributes:
        op: what it computes.
        inputs: indices of the earlier nodes it reads.
        attributes: its settings. conv: channels, kernel (odd; zero padding kernel // 2), stride,
            groups, bias (0 or 1); max_pool and avg_pool: kernel, stride (no padding, floor);
            dense: units (always with bias); dropout: rate; the others have none.
        layer: facts that follow from the operation and the attributes.
    """

    op: Op
    inputs: tuple[int, ...] = ()
    attributes: Mapping[str, Value] = field(default_factory=dict, hash=False)
    layer: Layer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        settings = tuple([(name, value, type(value)) for name, value in self.attributes.items()])
        object.__setattr__(self, "layer", _layer(self.op, settings))

    def integer(self, name: str) -> int:
        """Return an attribute that is an integer."""
        return int(self.attributes[name])

    def reading(self, inputs: tuple[int, ...]) -> Node:
        """Return the same layer with other inputs; several times as fast as a new node."""
        node: Node = object.__new__(Node)
        assign = object.__setattr__
        assign(node, "op", self.op)
        assign(node, "inputs", inputs)
        assign(node, "attributes", self.attributes)
        assign(node, "layer", self.layer)
        return node

    def having(self, **attributes: Value) -> Node:
        """Return the node with other values of these attributes."""
        return Node(self.op, self.inputs, {**self.attributes, **attributes})


def conv(  # noqa: PLR0913 - the attributes of a convolution
    source: int,
    channels: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: int = 0,
) -> Node:
    """Return a convolution that reads node `source`."""
    attributes = {
        "bias": bias,
        "channels": channels,
        "groups": groups,
        "kernel": kernel,
        "stride": stride,
    }
    return Node(Op.CONV, (source,), attributes)


@lru_cache(maxsize=2**14)
def _layer(op: Op, settings: tuple[tuple[str, Value, type], ...]) -> Layer:
    ordered = sorted((name, value) for name, value, _ in settings)
    attributes = {name: float(v) if name == "rate" else v for name, v in ordered}
    text = json.dumps(attributes, separators=(",", ":"))
    return Layer(
        op=op,
        attributes=attributes,
        fault=_fault(op, attributes),
        label=(str(op), tuple(attributes.items())),
        text=(f'["{op}",[', f"],{text}]"),
    )


def _fault(op: Op, attributes: Mapping[str, Value]) -> str:
    if tuple(attributes) != ATTRIBUTES.get(op, ()):
        return f"{op} has attributes {list(attributes)}"
    for name, value in attributes.items():
        if name == "rate":
            if not 0 <= value < 1:
                return f"rate is {value}"
        elif type(value) is not int or value < (0 if name == "bias" else 1):
            return f"{name} is {value!r}"
    if op is Op.CONV and (int(attributes["kernel"]) % 2 == 0 or attributes["bias"] > 1):
        return "kernel is even or bias is neither 0 nor 1"
    return ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Output and costs of a layer for inputs of given shapes.

    Attributes:
        shape: of the output without the batch, (C, H, W) or (C,).
        weights: names and shapes of the stored arrays.
        parameters: learned scalars.
        macs: MACs (multiply-adds) for one image, of convolutions and dense layers.
        elements: scalars of the output.
    """

    shape: Shape
    weights: tuple[tuple[str, Shape], ...]
    parameters: int
    macs: int
    elements: int


@lru_cache(maxsize=2**15)
def infer(layer: Layer, shapes: tuple[Shape, ...]) -> Facts | None:
    """Return the facts of a layer that reads these shapes, None if it cannot read them.

    An input's own shape stands for what it reads.
    """
    shape = _output_shape(layer, shapes)
    if shape is None or min(shape) < 1:
        return None
    weights = _weights(layer, shapes[0])
    learned = sum(math.prod(size) for name, size in weights if not name.startswith("running_"))
    macs = 0
    if layer.op in {Op.CONV, Op.DENSE}:
        macs = math.prod(weights[0][1]) * math.prod(shape[1:])
    return Facts(shape, weights, learned, macs, math.prod(shape))


def _weights(layer: Layer, read: Shape) -> tuple[tuple[str, Shape], ...]:
    if layer.op is Op.CONV:
        channels, kernel = layer.integer("channels"), layer.integer("kernel")
        filters = ("weight", (channels, read[0] // layer.integer("groups"), kernel, kernel))
        return (filters, ("bias", (channels,))) if layer.integer("bias") else (filters,)
    if layer.op is Op.DENSE:
        units = layer.integer("units")
        return ("weight", (units, read[0])), ("bias", (units,))
    if layer.op is Op.BATCH_NORM:
        names = ("weight", "bias", "running_mean", "running_var")
        return tuple((name, (read[0],)) for name in names)
    return ()


def _output_shape(layer: Layer, shapes: tuple[Shape, ...]) -> Shape | None:
    first = shapes[0]
    is_image = len(first) == 3
    if layer.op in _ANY_SHAPE:
        return first
    if layer.op is Op.DENSE:
        return None if is_image else (layer.integer("units"),)
    if layer.op is Op.ADD:
        return first if all(shape == first for shape in shapes) else None
    if layer.op is Op.CONCAT:
        alike = all(shape[1:] == first[1:] for shape in shapes)
        return (sum(shape[0] for shape in shapes), *first[1:]) if alike else None
    if not is_image:
        return None
    if layer.op is Op.GLOBAL_POOL:
        return (first[0],)
    if layer.op is Op.FLATTEN:
        return (math.prod(first),)
    kernel, stride = layer.integer("kernel"), layer.integer("stride")
    if layer.op is Op.CONV:
        channels, groups = layer.integer("channels"), layer.integer("groups")
        if channels % groups or first[0] % groups:
            return None
        return (channels, *((side - 1) // stride + 1 for side in first[1:]))
    return (first[0], *((side - kernel) // stride + 1 for side in first[1:]))
