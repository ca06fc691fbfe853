"""Deepening: an identity layer where its ReLU changes nothing; and larger kernels."""

from __future__ import annotations

import numpy as np

from automl.morphism.architecture import Architecture
from automl.morphism.insert import centred, insert, keyed, never_negative
from automl.morphism.moments import estimate_moments, undoing_norm
from automl.morphism.move import Move, MoveKind, illegal
from automl.morphism.nodes import RECTIFIERS, Node, Op, conv
from automl.morphism.weights import Array, Edit, Weights

KERNELS = (1, 3, 5)
MAX_KERNEL = 7
_VECTOR_SOURCES = frozenset({Op.GLOBAL_POOL, Op.FLATTEN})


def deepen_sites(architecture: Architecture) -> list[int]:
    """Return the nodes after which a layer may be inserted.

    A ReLU behind an identity keeps the function only where no value is negative: behind a ReLU or
    ReLU6, and for dense layers also behind the pooling or flattening of such a tensor.
    """
    return [i for i in range(len(architecture.nodes)) if _may_follow(architecture, i)]


def deepen_options(architecture: Architecture, site: int) -> list[Move]:
    """Return a dense layer behind a vector, convolutions of a few kernels behind an image."""
    shape = architecture.shapes()[site]
    if len(shape) == 1:
        return [Move(MoveKind.DEEPEN, site)]
    return [Move(MoveKind.DEEPEN, site, kernel=k) for k in KERNELS if k // 2 < shape[1]]


def deepen(parent: Architecture, move: Move) -> Edit:
    """Return the parent with an identity layer and a ReLU after node `site`.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    site, kernel = move.site, move.kernel
    is_image = len(parent.shapes()[site]) == 3
    if not _may_follow(parent, site) or bool(kernel) != is_image:
        raise illegal(move, f"a layer after {parent.nodes[site].op} would change the function")
    if kernel and kernel % 2 == 0:
        raise illegal(move, "the kernel is even")
    width = parent.shapes()[site][0]
    if kernel:
        layers = [conv(site, width, kernel), Node(Op.BATCH_NORM, (site + 1,))]
    else:
        layers = [Node(Op.DENSE, (site,), {"units": width})]
    layers.append(Node(Op.RELU, (site + len(layers),)))
    nodes, origins = insert(parent, site, layers)

    def changed(weights: Weights) -> dict[str, Array]:
        identity = np.eye(width, dtype=np.float32)
        if not kernel:
            zeros = np.zeros(width, dtype=np.float32)
            return keyed(site + 1, {"weight": identity, "bias": zeros})
        norm = undoing_norm(estimate_moments(parent, weights, site))
        filters = centred(identity[:, :, None, None], kernel)
        return keyed(site + 1, {"weight": filters}) | keyed(site + 2, norm)

    return Edit(nodes, origins, changed)


def _may_follow(architecture: Architecture, index: int) -> bool:
    op = architecture.nodes[index].op
    return op in RECTIFIERS or (op in _VECTOR_SOURCES and never_negative(architecture, index))


def kernel_sites(architecture: Architecture) -> list[int]:
    """Return the convolutions whose kernel may grow and would still see more than padding."""
    shapes = architecture.shapes()
    return [
        index
        for index, node in enumerate(architecture.nodes)
        if node.op is Op.CONV
        and node.integer("kernel") + 2 <= MAX_KERNEL
        and node.integer("kernel") // 2 + 1 < shapes[node.inputs[0]][1]
    ]


def kernel_options(architecture: Architecture, site: int) -> list[Move]:
    """Return the next larger kernel."""
    return [Move(MoveKind.KERNEL, site, kernel=architecture.nodes[site].integer("kernel") + 2)]


def enlarge_kernel(parent: Architecture, move: Move) -> Edit:
    """Return the parent with a larger kernel in one convolution, its new taps zero.

    Raises:
        SearchError: the move is not legal for this parent.
    """
    site, node = move.site, parent.nodes[move.site]
    if node.op is not Op.CONV:
        raise illegal(move, f"a {node.op} has no filters")
    if not node.integer("kernel") < move.kernel <= MAX_KERNEL or move.kernel % 2 == 0:
        raise illegal(move, f"kernel {move.kernel} is even, not larger, or above {MAX_KERNEL}")
    nodes = list(parent.nodes)
    nodes[site] = node.having(kernel=move.kernel)

    def changed(weights: Weights) -> dict[str, Array]:
        return keyed(site, {"weight": centred(weights[f"{site}.weight"], move.kernel)})

    return Edit(nodes, range(len(nodes)), changed)
