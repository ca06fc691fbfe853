"""Genotypes are equal exactly where networkx finds the labelled graphs isomorphic."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest

from automl.errors import ConfigError
from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.moves import Limits, random_move
from automl.morphism.nodes import conv
from automl.morphism.seeds import seed_architectures
from tests.morphs import random_network, relabelled

GROUPS = 20


def labelled(architecture: Architecture) -> nx.MultiDiGraph[int]:
    """The graph as networkx sees it: layers as colours, places of ordered inputs on the edges."""
    graph: nx.MultiDiGraph[int] = nx.MultiDiGraph()
    for index, node in enumerate(architecture.nodes):
        graph.add_node(index, layer=(node.op, tuple(sorted(node.attributes.items()))))
        for place, source in enumerate(node.inputs):
            graph.add_edge(source, index, place=place if node.op is Op.CONCAT else 0)
    return graph


def isomorphic(left: Architecture, right: Architecture) -> bool:
    """What networkx says, exactly; VF2 is asked only where cheap invariants agree."""
    first, second = labelled(left), labelled(right)
    if invariants(first) != invariants(second):
        return False
    return bool(
        nx.is_isomorphic(
            first,
            second,
            node_match=nx.algorithms.isomorphism.categorical_node_match("layer", None),
            edge_match=nx.algorithms.isomorphism.categorical_multiedge_match("place", None),
        )
    )


def invariants(graph: nx.MultiDiGraph[int]) -> Counter[object]:
    """Layers with their degrees, and pairs of layers that read one another."""
    layers = graph.nodes(data="layer")
    nodes = ((layer, graph.in_degree(index), graph.out_degree(index)) for index, layer in layers)
    edges = ((layers[a], layers[b], edge["place"]) for a, b, edge in graph.edges(data=True))
    return Counter((*nodes, *edges))


def cycles(*lengths: int) -> Architecture:
    """Equal convolutions whose sums pair them off in cycles: refinement alone cannot tell how."""
    nodes = [Node(Op.INPUT), *(conv(0, 4) for _ in range(sum(lengths)))]
    sums, start = [], 1
    for length in lengths:
        for step in range(length):
            sums.append(len(nodes))
            nodes.append(Node(Op.ADD, (start + step, start + (step + 1) % length)))
        start += length
    nodes.append(Node(Op.ADD, tuple(sums)))
    nodes.append(Node(Op.GLOBAL_POOL, (len(nodes) - 1,)))
    nodes.append(Node(Op.DENSE, (len(nodes) - 1,), {"units": 3}))
    return Architecture(4, 3, tuple(nodes))


CYCLES = [(3, 3), (6,), (4, 4), (8,), (3, 5)]


def any_network(rng: np.random.Generator) -> Architecture:
    """A random, a symmetric or a morphed seed network."""
    draw = rng.random()
    if draw < 0.04:
        return cycles(*CYCLES[int(rng.integers(len(CYCLES)))])
    if draw < 0.95:
        return random_network(rng, blocks=2)
    architecture = seed_architectures(8, 4)[int(rng.integers(3))]
    for _ in range(int(rng.integers(1, 5))):
        found = random_move(architecture, Limits(), rng)
        architecture = architecture if found is None else found[1]
    return architecture


def changed(architecture: Architecture, rng: np.random.Generator) -> Architecture:
    """The graph with one edge or one attribute changed."""
    while True:
        nodes = list(architecture.nodes)
        index = int(rng.integers(1, len(nodes)))
        node = nodes[index]
        if node.attributes and rng.random() < 0.5:
            name = sorted(node.attributes)[int(rng.integers(len(node.attributes)))]
            step = 0.1 if name == "rate" else int(rng.integers(1, 3))
            nodes[index] = node.having(**{name: node.attributes[name] + step})
        else:
            inputs = list(node.inputs)
            inputs[int(rng.integers(len(inputs)))] = int(rng.integers(index))
            nodes[index] = node.reading(tuple(inputs))
        if nodes[index] == node:
            continue
        try:
            return replace(architecture, nodes=tuple(nodes))
        except ConfigError:
            continue  # no graph of layers


@pytest.mark.parametrize("pairs", [5_000, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("group", range(GROUPS))
def test_genotypes_are_equal_exactly_where_graphs_are_isomorphic(group: int, pairs: int) -> None:
    rng = np.random.default_rng(group)
    verdicts: Counter[bool] = Counter()
    for pair in range(pairs // GROUPS):
        first = any_network(rng)
        second = first if pair % 2 else changed(first, rng)
        second = relabelled(second, rng)
        expected = isomorphic(first, second)
        verdicts[expected] += 1
        assert (first.digest == second.digest) == expected, (first.genotype(), second.genotype())
    assert verdicts[True] >= pairs // GROUPS // 2
    assert verdicts[False] >= pairs // GROUPS // 3


def test_graphs_that_colour_refinement_cannot_tell_apart_have_two_genotypes() -> None:
    rng = np.random.default_rng(0)
    digests = {}
    for lengths in ((3, 3), (6,), (3, 3, 6), (6, 3, 3), (6, 6), (3, 3, 3, 3)):
        found = {relabelled(cycles(*lengths), rng).digest for _ in range(20)}
        assert len(found) == 1, lengths
        digests[lengths] = found.pop()

    assert digests[3, 3, 6] == digests[6, 3, 3]
    assert len(set(digests.values())) == 5
