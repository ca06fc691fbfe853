"""Architectures as the kernel sees them: one node for each layer with its norm and activation."""

from __future__ import annotations

import math
from functools import lru_cache

from automl.morphism.architecture import Architecture, Op
from automl.morphism.nodes import RECTIFIERS, Layer
from automl.search.space import LabelledGraph

_FOLLOWERS = frozenset({Op.BATCH_NORM, Op.DROPOUT}) | RECTIFIERS


def layer_graph(architecture: Architecture) -> LabelledGraph:
    """Return the graph of layers; batch norm, ReLU and dropout belong to the layer before them.

    They do where nothing else reads that layer. Sizes are binary logarithms of widths.
    """
    shapes, consumers = architecture.shapes(), architecture.consumers()
    owner: list[int] = []  # the place in the graph that stands for each node
    labels: list[str] = []
    inputs: list[tuple[int, ...]] = []
    sizes: list[float] = []
    for index, node in enumerate(architecture.nodes):
        if node.op in _FOLLOWERS and len(consumers[node.inputs[0]]) == 1:
            place = owner[node.inputs[0]]
            labels[place] += f" {node.op}"
            owner.append(place)
            continue
        owner.append(len(labels))
        labels.append(_label(node.layer))
        inputs.append(tuple(owner[source] for source in node.inputs))
        sizes.append(math.log2(shapes[index][0]))
    return LabelledGraph(tuple(labels), tuple(inputs), tuple(sizes))


@lru_cache(maxsize=2**14)  # layers are few: equal ones are the same object
def _label(layer: Layer) -> str:
    """Return what a layer is, its width aside."""
    if layer.op is Op.CONV:
        kernel, stride, groups = (layer.integer(name) for name in ("kernel", "stride", "groups"))
        grouped = "depthwise" if groups == layer.integer("channels") > 1 else f"groups={groups}"
        return f"conv {kernel}x{kernel} /{stride} {grouped}"
    if layer.op in {Op.MAX_POOL, Op.AVG_POOL}:
        return f"{layer.op} {layer.integer('kernel')} /{layer.integer('stride')}"
    return str(layer.op)
