"""Memory that the training of an architecture takes, predicted from its graph."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from enum import StrEnum

from automl.morphism.architecture import Architecture, Node, Op, Shape
from automl.morphism.pretrained import frozen_of_descendant

_FLOAT_BYTES = 4
_INDEX_BYTES = 8
RESIDENT_SHARE = 0.4  # of a GPU's memory that training rows may take; else they are streamed
_COPIES = 2  # of the weights: averaged over the steps, and those of the best epoch
_CAST = frozenset({Op.CONV, Op.DENSE})  # what autocast computes in bfloat16
_LEARNING = _CAST | {Op.BATCH_NORM}
_READ_BACKWARD = _CAST | {Op.BATCH_NORM, Op.MAX_POOL, Op.AVG_POOL, Op.RELU6}


class Precision(StrEnum):
    """Number format of convolutions and dense layers; weights and statistics stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"  # under autocast

    @property
    def size_bytes(self) -> int:
        """Bytes of a scalar."""
        return 2 if self is Precision.BFLOAT16 else 4


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Settings besides the architecture that the memory of a training depends on.

    Attributes:
        batch_size: images of a step.
        evaluation_batch: images that are evaluated at once, in float32; 0 without evaluation.
        dataset_bytes: of the images and labels that lie on the device.
        precision: of the forward passes of steps.
        replicas: copies of the network between which a batch is divided.
    """

    batch_size: int
    evaluation_batch: int = 0
    dataset_bytes: int = 0
    precision: Precision = Precision.FLOAT32
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """The bytes that a training takes at its peak, by what they hold.

    Attributes:
        weights: parameters, and the running statistics of batch norms.
        gradients: of the trained parameters, every replica's; they live until the next backward
            pass starts.
        optimizer: momentum of the trained parameters; of descendants of a pretrained network mean
            squared gradients, too.
        copies: averaged weights, and the weights of the best epoch.
        activations: what the backward pass reads again: the tensors that convolutions, batch norms,
            dense layers, pools and ReLU6 have read, the outputs of ReLUs, the places of maxima
            (int64), the masks of dropout nodes and the log-probabilities of the loss; under
            autocast also the copies in bfloat16 of weights and of float32 inputs. A tensor that two
            layers read counts once. Layers of a pretrained network that are frozen save nothing.
        workspace: what else lives at the peak: other outputs until their last reader is done, or
            the gradients of activations, or the outputs of an evaluation.
        dataset: images and labels.
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    workspace: int
    dataset: int

    @property
    def total(self) -> int:
        """All of them."""
        lasting = self.weights + self.gradients + self.optimizer + self.copies + self.dataset
        return lasting + self.activations + self.workspace


def memory_need(architecture: Architecture, plan: TrainingPlan) -> MemoryNeed:
    """Return what a training takes from the first step to the last evaluation.

    Not counted, since only measurements tell (`automl.search.memory_model`): scratch space of
    convolutions, what allocators lose to fragments, code that is loaded or generated at first use,
    and dropout in front of the logits of an architecture without any of its own.
    """
    frozen = frozen_of_descendant(architecture)
    learned = _FLOAT_BYTES * sum(facts.parameters for facts in architecture.facts[frozen or 0 :])
    stored = _FLOAT_BYTES * sum(
        math.prod(shape) for facts in architecture.facts for _, shape in facts.weights
    )
    image = _per_image(architecture, plan.precision, frozen or 0)
    saved = plan.batch_size * image.saved
    step = plan.batch_size * image.peak
    if plan.batch_size and plan.precision is Precision.BFLOAT16:
        casts = plan.replicas * plan.precision.size_bytes * _cast_weights(architecture, frozen or 0)
        saved, step = saved + casts, step + casts
    outputs = [_FLOAT_BYTES * facts.elements for facts in architecture.facts]
    nothing = [0] * len(outputs)
    evaluation = plan.evaluation_batch * _forward_peak(architecture, outputs, set(), nothing)
    return MemoryNeed(
        weights=stored,
        gradients=plan.replicas * learned,
        optimizer=learned if frozen is None else 2 * learned,
        copies=_COPIES * stored,
        activations=saved,
        workspace=max(step, evaluation, saved) - saved,
        dataset=plan.dataset_bytes,
    )


@dataclass(frozen=True, slots=True)
class _PerImage:
    """Bytes for each image of a step: saved for the backward pass, and alive at the peak."""

    saved: int
    peak: int


def _per_image(architecture: Architecture, precision: Precision, frozen: int) -> _PerImage:
    nodes, elements = architecture.nodes, [facts.elements for facts in architecture.facts]
    widths = _widths(architecture, precision)
    outputs = [width * count for width, count in zip(widths, elements, strict=True)]
    read, extra = _read_again(architecture, widths, precision, frozen)
    held = [(outputs[i] if i in read else 0) + extra[i] for i in range(len(nodes))]
    forward = _forward_peak(architecture, outputs, read, extra)
    # at a node's turn, what the nodes behind it have saved is free again
    backward = max(
        alive + outputs[i] + sum([outputs[source] for source in nodes[i].inputs])
        for i, alive in enumerate(itertools.accumulate(held))
    )
    return _PerImage(sum(held), max(forward, backward))


def _forward_peak(
    architecture: Architecture, outputs: list[int], kept: set[int], extra: list[int]
) -> int:
    """Return the most bytes that are alive in a forward pass, which drops what is not read again.

    Args:
        architecture: the network.
        outputs: bytes of each node's output.
        kept: nodes whose outputs live on.
        extra: bytes that live on besides the outputs, of each node.
    """
    consumers = architecture.consumers()
    alive = peak = 0
    for index, node in enumerate(architecture.nodes):
        alive += outputs[index] + extra[index]
        peak = max(peak, alive)
        for source in set(node.inputs) - kept:
            if max(consumers[source]) == index:
                alive -= outputs[source]
    return peak


def _widths(architecture: Architecture, precision: Precision) -> list[int]:
    """Return the bytes of a scalar of each node's output."""
    widths: list[int] = []
    for node in architecture.nodes:
        if node.op in _CAST:
            widths.append(_computed_bytes(node, precision))
        else:
            widths.append(max([widths[source] for source in node.inputs], default=_FLOAT_BYTES))
    return widths


def _computed_bytes(node: Node, precision: Precision) -> int:
    """Return the bytes of a scalar that a convolution or dense layer computes in.

    Convolutions of groups are computed in float32 on CPUs; on GPUs this counts too much for them.
    """
    is_grouped = node.op is Op.CONV and node.integer("groups") > 1
    return _FLOAT_BYTES if is_grouped else precision.size_bytes


def _read_again(
    architecture: Architecture, widths: list[int], precision: Precision, frozen: int
) -> tuple[set[int], list[int]]:
    """Return the nodes whose outputs are saved, and the bytes each node saves besides them.

    The first `frozen` nodes are not trained.
    """
    nodes, shapes = architecture.nodes, architecture.shapes()
    elements = [facts.elements for facts in architecture.facts]
    read, extra = set[int](), [0] * len(nodes)
    has_gradient = list[bool]()  # what no trained weights have touched has none: nothing is saved
    for index, node in enumerate(nodes):
        is_touched = any(has_gradient[i] for i in node.inputs)
        has_gradient.append((node.op in _LEARNING and index >= frozen) or is_touched)
        if not has_gradient[index]:
            continue
        source = node.inputs[0] if node.inputs else 0
        if _reads_a_part(node):
            extra[index] += precision.size_bytes * _part_read(shapes[source], shapes[index])
        elif node.op in _CAST and widths[source] != _computed_bytes(node, precision):
            extra[index] += _computed_bytes(node, precision) * elements[source]
        elif node.op in _READ_BACKWARD:
            read.update(node.inputs)
        if node.op is Op.RELU:
            read.add(index)
        elif node.op is Op.MAX_POOL:
            extra[index] += _INDEX_BYTES * elements[index]
        elif node.op is Op.DROPOUT:
            extra[index] += widths[index] * elements[index]
    extra[-1] += _FLOAT_BYTES * architecture.classes  # log-probabilities
    return read, extra


def _reads_a_part(node: Node) -> bool:
    """Return whether it is a 1 x 1 convolution with a stride, which copies the pixels it reads."""
    return node.op is Op.CONV and node.integer("kernel") == 1 and node.integer("stride") > 1


def _part_read(source: Shape, output: Shape) -> int:
    return source[0] * math.prod(output[1:])


def _cast_weights(architecture: Architecture, frozen: int) -> int:
    """Return how many scalars of trained weights and biases autocast keeps copies of."""
    trained = zip(architecture.nodes[frozen:], architecture.facts[frozen:], strict=True)
    return sum(
        facts.parameters
        for node, facts in trained
        if node.op in _CAST and _computed_bytes(node, Precision.BFLOAT16) != _FLOAT_BYTES
    )
