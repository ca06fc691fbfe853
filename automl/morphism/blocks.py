"""Residual blocks behind a node, whose branch writes zeros at first."""

from __future__ import annotations

import numpy as np

from automl.morphism.architecture import Architecture
from automl.morphism.insert import fresh_norm, he_normal, insert, keyed, never_negative
from automl.morphism.move import Move, MoveKind, illegal
from automl.morphism.nodes import RECTIFIERS, Node, Op, conv
from automl.morphism.weights import Array, Edit, Weights

_SITES = frozenset({Op.ADD, Op.MAX_POOL, Op.AVG_POOL}) | RECTIFIERS
_KERNELS = (3, 5)


def block_sites(architecture: Architecture) -> list[int]:
    """Return the image tensors that a residual block may follow."""
    return [i for i in range(len(architecture.nodes)) if _may_follow(architecture, i)]


def residual_options(architecture: Architecture, site: int) -> list[Move]:
    """Return a block of two 3x3 convolutions."""
    del architecture
    return [Move(MoveKind.RESIDUAL, site, kernel=3)]


def separable_options(architecture: Architecture, site: int) -> list[Move]:
    """Return depthwise-separable blocks of a few kernels."""
    side = architecture.shapes()[site][1]
    return [
        Move(MoveKind.SEPARABLE, site, kernel=kernel) for kernel in _KERNELS if kernel // 2 < side
    ]


def insert_block(parent: Architecture, move: Move) -> Edit:
    """Return the parent with a residual block after node `site`.

    Residual: two convolutions (arXiv:1512.03385); separable: a depthwise and a 1x1 convolution
    (arXiv:1704.04861); batch norm and ReLU between them. The filters are He-initialised from
    `seed`, and the last batch norm has gain zero (arXiv:1706.02677, sec. 5.1), so that the branch
    writes zeros in training mode too. A ReLU follows the addition where it changes nothing.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    site, kernel = move.site, move.kernel
    if not _may_follow(parent, site):
        raise illegal(move, f"a {parent.nodes[site].op} is no image that a block may follow")
    if kernel % 2 == 0:
        raise illegal(move, "the kernel is even")
    width = parent.shapes()[site][0]
    is_separable = move.kind is MoveKind.SEPARABLE
    second_kernel = 1 if is_separable else kernel
    layers = [
        conv(site, width, kernel, groups=width if is_separable else 1),
        *_after_first(site, width, second_kernel),
    ]
    if never_negative(parent, site):
        layers.append(Node(Op.RELU, (site + 6,)))
    nodes, origins = insert(parent, site, layers)

    def changed(_: Weights) -> dict[str, Array]:
        rng = np.random.default_rng(move.seed)
        first = (width, 1 if is_separable else width, kernel, kernel)
        second = (width, width, second_kernel, second_kernel)
        return {
            f"{site + 1}.weight": he_normal(first, rng),
            **keyed(site + 2, fresh_norm(width, 1.0)),
            f"{site + 4}.weight": he_normal(second, rng),
            **keyed(site + 5, fresh_norm(width, 0.0)),
        }

    return Edit(nodes, origins, changed)


def _after_first(site: int, width: int, kernel: int) -> list[Node]:
    """Return what follows a block's first convolution, up to the addition."""
    return [
        Node(Op.BATCH_NORM, (site + 1,)),
        Node(Op.RELU, (site + 2,)),
        conv(site + 3, width, kernel),
        Node(Op.BATCH_NORM, (site + 4,)),
        Node(Op.ADD, (site, site + 5)),
    ]


def _may_follow(architecture: Architecture, index: int) -> bool:
    return architecture.nodes[index].op in _SITES and len(architecture.shapes()[index]) == 3
