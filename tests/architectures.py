"""Architectures for tests of everything that an architecture can have."""

from __future__ import annotations

from automl.morphism.architecture import Architecture, Node, Op


def every_op() -> Architecture:
    """Return a network with a node of every operation but ReLU6."""
    conv = {"kernel": 3, "stride": 1, "groups": 1, "bias": 1}
    nodes = (
        Node(Op.INPUT),
        Node(Op.CONV, (0,), {**conv, "channels": 8}),
        Node(Op.BATCH_NORM, (1,)),
        Node(Op.RELU, (2,)),
        Node(Op.CONV, (3,), {**conv, "channels": 8, "groups": 4, "bias": 0}),
        Node(Op.ADD, (3, 4)),
        Node(Op.CONCAT, (5, 3)),
        Node(Op.MAX_POOL, (6,), {"kernel": 2, "stride": 2}),
        Node(Op.CONV, (7,), {**conv, "channels": 6, "kernel": 5, "stride": 2}),
        Node(Op.AVG_POOL, (8,), {"kernel": 2, "stride": 2}),
        Node(Op.FLATTEN, (9,)),
        Node(Op.GLOBAL_POOL, (8,)),
        Node(Op.CONCAT, (10, 11)),
        Node(Op.DENSE, (12,), {"units": 7}),
        Node(Op.BATCH_NORM, (13,)),
        Node(Op.DROPOUT, (14,), {"rate": 0.5}),
        Node(Op.DENSE, (15,), {"units": 4}),
    )
    return Architecture(11, 3, nodes)


def short_chain(dropout: float = 0.0) -> Architecture:
    """Return a convolution, a norm, a ReLU, a mean over the map, dropout and 4 logits, at 8 px."""
    nodes = (
        Node(Op.INPUT),
        Node(Op.CONV, (0,), {"channels": 6, "kernel": 3, "stride": 1, "groups": 1, "bias": 0}),
        Node(Op.BATCH_NORM, (1,)),
        Node(Op.RELU, (2,)),
        Node(Op.GLOBAL_POOL, (3,)),
        Node(Op.DROPOUT, (4,), {"rate": dropout}),
        Node(Op.DENSE, (5,), {"units": 4}),
    )
    return Architecture(8, 3, nodes).canonical()[0]
