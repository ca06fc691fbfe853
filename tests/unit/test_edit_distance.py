from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.search.space import LabelledGraph
from automl.search.surrogate import edit_distance
from automl.search.surrogate.edit_distance import Branch, Outline, edit_distances, outline
from tests.spaces import graphs

CLOSE = 1e-5  # chains are aligned in float32


def chain(labels: str, *sizes: float) -> LabelledGraph:
    inputs = tuple((index - 1,) if index else () for index in range(len(labels)))
    return LabelledGraph(tuple(labels), inputs, sizes)


def apart(first: LabelledGraph, second: LabelledGraph) -> float:
    return float(edit_distances([outline(first)], [outline(second)])[0, 0])


def alignment(first: Outline, second: Outline) -> float:
    """Needleman and Wunsch's recurrence, cell by cell."""
    cost = [[float(i + j) for j in range(len(second.labels) + 1)] for i in range(99)]
    for i, (label, size) in enumerate(zip(first.labels, first.sizes, strict=True), 1):
        for j, (other, width) in enumerate(zip(second.labels, second.sizes, strict=True), 1):
            change = min(abs(size - width), 1.0) if label == other else 1.0
            cost[i][j] = min(
                cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + change
            )  # fmt: skip
    return cost[len(first.labels)][len(second.labels)]


def assignment(first: Sequence[Branch], second: Sequence[Branch]) -> float:
    """The best of all ways to pair the smaller set's branches with some of the larger's."""
    few, many = sorted([first, second], key=len)
    pairings = permutations(many, len(few))
    return len(many) - len(few) + min(sum(map(moving, few, chosen)) for chosen in pairings)


def moving(branch: Branch, other: Branch) -> float:
    """Formula 5 of arXiv:1806.10282."""
    if branch.label != other.label:
        return 1.0
    moved = abs(branch.start - other.start) + abs(branch.end - other.end)
    reach = max(branch.start, other.start) + max(branch.end, other.end)
    return moved / reach if reach else 0.0


def longest(graph: LabelledGraph) -> int:
    """Length of the longest path, by looking at all."""

    def ending_at(node: int) -> int:
        return 1 + max(map(ending_at, graph.inputs[node]), default=0)

    return max(map(ending_at, range(len(graph.labels))))


@given(graphs())
def test_an_outline_is_the_longest_path_and_all_that_is_beside_it(graph: LabelledGraph) -> None:
    found = outline(graph)

    edges = sum(map(len, graph.inputs))
    beside = [branch for branch in found.branches if branch.label]
    assert len(found.labels) == longest(graph)
    assert len(found.labels) + len(beside) == len(graph.labels)
    assert len(found.labels) - 1 + len(found.branches) - len(beside) == edges
    assert sorted([*found.labels, *(branch.label for branch in beside)]) == sorted(graph.labels)


def test_branches_are_held_by_their_places_on_the_chain() -> None:
    # a - b - c - d - e - g, a skip from b to e, and f between b and e
    graph = LabelledGraph(tuple("abcdfeg"), ((), (0,), (1,), (2,), (1,), (4, 3, 1), (5,)))

    found = outline(graph)

    assert found.labels == ("a", "b", "c", "d", "e", "g")
    assert found.branches == (
        Branch(1, 4, ""),  # the skip
        Branch(1, 4, ""),  # into f
        Branch(1, 4, ""),  # out of f
        Branch(1, 4, "f"),
    )


@given(first=graphs(), second=graphs())
def test_it_is_a_symmetric_distance(first: LabelledGraph, second: LabelledGraph) -> None:
    assert apart(first, first) == 0
    assert apart(first, second) >= 0
    assert apart(first, second) == pytest.approx(apart(second, first), abs=CLOSE)


@given(first=graphs(), second=graphs(), third=graphs())
def test_chains_obey_the_triangle_inequality(
    first: LabelledGraph, second: LabelledGraph, third: LabelledGraph
) -> None:
    one, two, three = (
        LabelledGraph(graph.labels, chain("x" * len(graph.labels)).inputs, graph.sizes)
        for graph in (first, second, third)
    )

    assert apart(one, three) <= apart(one, two) + apart(two, three) + CLOSE


@given(first=graphs(5), second=graphs(5))
def test_it_is_the_best_alignment_and_the_best_assignment(
    first: LabelledGraph, second: LabelledGraph
) -> None:
    one, two = outline(first), outline(second)

    expected = alignment(one, two) + assignment(one.branches, two.branches)

    assert apart(first, second) == pytest.approx(expected, abs=CLOSE)


@given(st.lists(graphs(), min_size=1, max_size=6), st.lists(graphs(), min_size=1, max_size=6))
def test_a_batch_gives_what_single_pairs_give(
    rows: list[LabelledGraph], columns: list[LabelledGraph]
) -> None:
    together = edit_distances(list(map(outline, rows)), list(map(outline, columns)))

    assert together.tolist() == [[apart(row, column) for column in columns] for row in rows]


def test_a_batch_of_any_size_is_worked_off_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    outlines = [outline(chain("x" * n, *[n / 4] * n)) for n in range(1, 12)]
    whole = edit_distances(outlines, outlines)

    monkeypatch.setattr(edit_distance, "_PAIRS_AT_ONCE", 7)

    assert np.array_equal(edit_distances(outlines, outlines), whole)


def test_a_layer_more_costs_one_wherever_it_is() -> None:
    assert apart(chain("abc"), chain("abxc")) == 1
    assert apart(chain("abc"), chain("xabc")) == 1
    assert apart(chain("abc"), chain("abcx")) == 1


def test_another_layer_costs_one_and_another_width_less() -> None:
    assert apart(chain("abc"), chain("axc")) == 1
    assert apart(chain("abc", 0, 5, 0), chain("abc", 0, 5.25, 0)) == 0.25
    assert apart(chain("abc", 0, 5, 0), chain("abc", 0, 9, 0)) == 1
    assert apart(chain("abc", 0, 5, 0), chain("axc", 0, 5.25, 0)) == 1


def test_a_skip_more_costs_one_and_a_moved_one_a_part_of_it() -> None:
    plain = chain("abcde")
    short = LabelledGraph(plain.labels, ((), (0,), (1,), (2, 1), (3,)))
    other = LabelledGraph(plain.labels, ((), (0,), (1,), (2,), (3, 2)))

    assert apart(plain, short) == 1
    # from 1 -> 3 to 2 -> 4: moved by 2, of at most 2 + 4
    assert apart(short, other) == pytest.approx(2 / 6)
