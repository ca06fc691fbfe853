"""A node order that does not depend on the order given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

Label = tuple[Any, ...]


def canonical_order(
    labels: Sequence[Label], inputs: Sequence[tuple[int, ...]], commutative: Sequence[bool]
) -> list[int]:
    """Return the nodes' present indices in canonical, topological order.

    Colours are refined as in Weisfeiler and Lehman (1968) over inputs and consumers. They start
    with the depth, and a refined colour never changes the order of two nodes that differed before,
    so sorting by colour is topological. Where colours tie, one node is singled out and refinement
    goes on; in the graphs of layers that we build, tied nodes are images of each other under an
    automorphism, hence the choice does not show.

    Args:
        labels: what a node is, apart from its place; mutually comparable.
        inputs: for each node, the earlier nodes that it reads, in order.
        commutative: whether the order of a node's inputs is irrelevant.
    """
    depths: list[int] = []
    for sources in inputs:
        depths.append(1 + max((depths[source] for source in sources), default=-1))
    colours = _ranks([(depth, label) for depth, label in zip(depths, labels, strict=True)])
    colours = _refine(colours, inputs, commutative)
    while len(set(colours)) < len(colours):
        tied = min(colour for colour, count in Counter(colours).items() if count > 1)
        chosen = colours.index(tied)
        colours = [2 * colour for colour in colours]
        colours[chosen] -= 1
        colours = _refine(colours, inputs, commutative)
    return sorted(range(len(colours)), key=colours.__getitem__)


def _refine(
    colours: list[int], inputs: Sequence[tuple[int, ...]], commutative: Sequence[bool]
) -> list[int]:
    """Split colours by the colours around them until no class splits any more."""
    while True:
        readers: list[list[tuple[int, int]]] = [[] for _ in colours]
        for index, sources in enumerate(inputs):
            for place, source in enumerate(sources):
                readers[source].append((colours[index], 0 if commutative[index] else place))
        signatures = []
        for index, sources in enumerate(inputs):
            read = [colours[source] for source in sources]
            read = sorted(read) if commutative[index] else read
            signatures.append((colours[index], tuple(read), tuple(sorted(readers[index]))))
        refined = _ranks(signatures)
        if len(set(refined)) == len(set(colours)):
            return refined
        colours = refined


def _ranks(signatures: Sequence[Hashable]) -> list[int]:
    rank = {signature: place for place, signature in enumerate(sorted(set(signatures)))}  # type: ignore[type-var]
    return [rank[signature] for signature in signatures]
