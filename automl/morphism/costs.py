"""What an architecture will cost, computed from its graph: time, memory and work."""

from __future__ import annotations

import math
from dataclasses import dataclass

from automl.morphism.architecture import Architecture, Node, Op

WORK_PER_BYTE = 10  # multiply-adds; one CPU thread makes 5 to 15 in the time that moves a byte
_TRAINING_PASSES = 3  # a backward pass does the work of two forward passes
_FLOAT_BYTES = 4
_INDEX_BYTES = 8
_KEPT_PER_PARAMETER = 3  # weight, gradient, momentum
_STATISTICS = 2  # of each channel that a batch norm reads: running mean and variance
_READ_BACKWARD = frozenset({Op.CONV, Op.BATCH_NORM, Op.DENSE, Op.MAX_POOL, Op.AVG_POOL, Op.RELU6})


@dataclass(frozen=True, slots=True)
class DeviceFactors:
    """How fast a machine computes the prediction of one image on one CPU thread.

    Attributes:
        ps_per_flop: picoseconds for a multiply-add of a convolution or dense layer.
        ps_per_byte: picoseconds for a byte of a node's output.
        ns_per_layer: nanoseconds for a node, whatever it computes.
    """

    ps_per_flop: int
    ps_per_byte: int
    ns_per_layer: int

    def latency_ms(self, architecture: Architecture) -> float:
        """Return the milliseconds for one image on one CPU thread, predicted."""
        total_ps = (
            self.ps_per_flop * architecture.flops
            + self.ps_per_byte * architecture.activation_bytes
            + 1000 * self.ns_per_layer * len(architecture.nodes)
        )
        return total_ps / 1e9


def training_bytes(architecture: Architecture, batch_size: int) -> int:
    """Return the bytes that hold a training's tensors from the forward to the backward pass.

    Counted, in float32: the weights, their gradients and their momentum; the running statistics of
    batch norms; and for each image what the backward pass reads again: the tensors that
    convolutions, batch norms, dense layers, pools and ReLU6 have read, the outputs of ReLUs, the
    places of maxima (int64), the masks of dropout nodes and the loss's log-probabilities. A tensor
    that two layers read counts once.

    Not counted: what lives for a moment only (other outputs, the gradients of activations, the
    workspace of convolutions), a second copy of the best weights, the dataset if it lies on the
    device, dropout in front of the logits of an architecture without any of its own, and what
    the runtime itself takes. Under bfloat16 the activations take half of this.

    Args:
        architecture: the network.
        batch_size: images of a step.
    """
    statistics = sum(
        _STATISTICS * shape[0]
        for node, shape in zip(architecture.nodes, architecture.shapes(), strict=True)
        if node.op is Op.BATCH_NORM
    )
    fixed = _FLOAT_BYTES * (_KEPT_PER_PARAMETER * architecture.parameters + statistics)
    return fixed + batch_size * _saved_bytes(architecture)


def training_work(architecture: Architecture) -> int:
    """Return the work of one training step for each image, in multiply-adds.

    A byte of a node's output, which is written once and read about as often, counts as much as
    `WORK_PER_BYTE` multiply-adds. Every candidate is trained on the same images for as many epochs,
    so this is proportional to a trial's cost.
    """
    forward = architecture.flops + WORK_PER_BYTE * architecture.activation_bytes
    return _TRAINING_PASSES * forward


def _saved_bytes(architecture: Architecture) -> int:
    """Return the bytes that wait for the backward pass, for each image."""
    shapes = architecture.shapes()
    elements = [facts.elements for facts in architecture.facts]
    kept: set[int] = set()
    extra = _FLOAT_BYTES * architecture.classes  # log-probabilities
    for index, node in enumerate(architecture.nodes):
        if _reads_a_part(node):
            channels, pixels = shapes[node.inputs[0]][0], math.prod(shapes[index][1:])
            extra += _FLOAT_BYTES * channels * pixels
        elif node.op in _READ_BACKWARD:
            kept.update(node.inputs)
        if node.op is Op.RELU:
            kept.add(index)
        elif node.op is Op.MAX_POOL:
            extra += _INDEX_BYTES * elements[index]
        elif node.op is Op.DROPOUT:
            extra += _FLOAT_BYTES * elements[index]
    return extra + _FLOAT_BYTES * sum(elements[index] for index in kept)


def _reads_a_part(node: Node) -> bool:
    """Whether it is a 1 x 1 convolution with a stride: it keeps a copy of the pixels it reads."""
    return node.op is Op.CONV and node.whole("kernel") == 1 and node.whole("stride") > 1
