"""Architectures that also read smaller images, with the same weights."""

from __future__ import annotations

from automl.morphism.architecture import Architecture
from automl.morphism.nodes import Op, Shape, infer

_POOLS = frozenset({Op.MAX_POOL, Op.AVG_POOL})


def reads_resolution(architecture: Architecture, size: int) -> bool:
    """Return whether the architecture's weights also fit images of `size` pixels.

    Pools that cover their whole image are taken to cover the smaller one as well.

    Args:
        architecture: for larger images.
        size: height and width of the smaller ones.
    """
    own = architecture.shapes()
    smaller: list[Shape] = []
    for index, node in enumerate(architecture.nodes):
        read = tuple([smaller[source] for source in node.inputs])
        if node.op in _POOLS and node.integer("kernel") == own[node.inputs[0]][1]:
            node = node.having(kernel=read[0][1], stride=read[0][1])
        if index == 0:
            read = ((architecture.input_channels, size, size),)
        facts = infer(node.layer, read)
        if facts is None or facts.weights != architecture.facts[index].weights:
            return False
        smaller.append(facts.shape)
    return True
