from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from automl.search.space import LabelledGraph
from automl.search.surrogate.weisfeiler_lehman import ROUNDS, WeisfeilerLehman
from tests.spaces import graphs


def chain(labels: str) -> LabelledGraph:
    inputs = tuple((index - 1,) if index else () for index in range(len(labels)))
    return LabelledGraph(tuple(labels), inputs)


def relabelled(graph: LabelledGraph, draw: st.DataObject) -> LabelledGraph:
    """The same graph in another topological order, its nodes' inputs in another order."""
    order: list[int] = []
    while len(order) < len(graph.labels):
        ready = [
            node
            for node in range(len(graph.labels))
            if node not in order and set(graph.inputs[node]) <= set(order)
        ]
        order.append(draw.draw(st.sampled_from(ready)))
    place = {node: index for index, node in enumerate(order)}
    inputs = [
        tuple(draw.draw(st.permutations([place[source] for source in graph.inputs[node]])))
        for node in order
    ]
    return LabelledGraph(tuple(graph.labels[node] for node in order), tuple(inputs))


def neighbourhoods(graph: LabelledGraph) -> list[Counter[Any]]:
    """Weisfeiler and Lehman's refinement written out, with trees of labels as colours."""
    colours: list[Any] = list(graph.labels)
    counts = [Counter(colours)]
    for _ in range(ROUNDS):
        refined: list[Any] = []
        for node, sources in enumerate(graph.inputs):
            above = sorted((colours[source] for source in sources), key=repr)
            readers = [other for other, read in enumerate(graph.inputs) if node in read]
            below = sorted((colours[reader] for reader in readers), key=repr)
            refined.append((colours[node], tuple(above), tuple(below)))
        colours = refined
        counts.append(Counter(colours))
    return counts


def distance(first: Counter[Any], second: Counter[Any]) -> int:
    return sum((first[key] - second[key]) ** 2 for key in first.keys() | second.keys())


@given(graph=graphs(), data=st.data())
def test_the_names_of_nodes_do_not_matter(graph: LabelledGraph, data: st.DataObject) -> None:
    encoder = WeisfeilerLehman()

    assert encoder.encode(relabelled(graph, data)) == encoder.encode(graph)


@given(first=graphs(), second=graphs())
def test_distances_are_those_of_neighbourhoods_written_out(
    first: LabelledGraph, second: LabelledGraph
) -> None:
    encoder = WeisfeilerLehman()
    found = map(distance, encoder.encode(first), encoder.encode(second))

    assert list(found) == list(map(distance, neighbourhoods(first), neighbourhoods(second)))


@given(st.lists(graphs(), min_size=2, max_size=5))
def test_distances_do_not_depend_on_what_was_encoded_before(many: list[LabelledGraph]) -> None:
    forwards, backwards = WeisfeilerLehman(), WeisfeilerLehman()
    first = [forwards.encode(graph) for graph in many]
    second = [backwards.encode(graph) for graph in reversed(many)][::-1]

    for radius in range(ROUNDS + 1):
        for i in range(len(many)):
            assert distance(first[0][radius], first[i][radius]) == distance(
                second[0][radius], second[i][radius]
            )


def test_the_order_of_layers_shows_from_radius_one() -> None:
    encoder = WeisfeilerLehman()
    first, second = encoder.encode(chain("xyz")), encoder.encode(chain("xzy"))

    assert [distance(*pair) > 0 for pair in zip(first, second, strict=True)] == [
        False, True, True,
    ]  # fmt: skip


def test_what_is_two_layers_away_shows_at_radius_two() -> None:
    encoder = WeisfeilerLehman()
    inputs = ((), (0,), (1,), (2,), (), (4,), (5,), (6,))  # two chains
    first = encoder.encode(LabelledGraph(tuple("xaayuaav"), inputs))
    second = encoder.encode(LabelledGraph(tuple("xaavuaay"), inputs))

    assert first[:2] == second[:2]
    assert first[2] != second[2]


def test_the_direction_of_an_edge_matters() -> None:
    encoder = WeisfeilerLehman()
    fork = LabelledGraph(("x", "x", "x"), ((), (0,), (0,)))
    join = LabelledGraph(("x", "x", "x"), ((), (), (0, 1)))

    assert encoder.encode(fork)[0] == encoder.encode(join)[0]
    assert encoder.encode(fork)[1] != encoder.encode(join)[1]
