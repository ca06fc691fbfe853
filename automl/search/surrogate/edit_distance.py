"""Edit distance of labelled graphs: main chains are aligned, everything beside them is matched.

As in Auto-Keras (arXiv:1806.10282, sec. 3.1): the distance is that of the best alignment of two
chains of layers, plus that of the best assignment between what is beside them, which there are
skip connections only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from automl.search.arrays import Matrix
from automl.search.space import LabelledGraph

_PADDING = -1  # label of the places behind a chain's end
_PAIRS_AT_ONCE = 2048


class Branch(NamedTuple):
    """A node or an edge beside the main chain.

    Attributes:
        start: place on the chain of the last node that leads to it.
        end: place on the chain of the first node that it leads to.
        label: the node's label; empty for an edge.
    """

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Outline:
    """A graph as its longest path and what is beside it.

    Attributes:
        labels: of the nodes of the chain.
        sizes: theirs.
        branches: all nodes and edges that are not on the chain, sorted.
    """

    labels: tuple[str, ...]
    sizes: tuple[float, ...]
    branches: tuple[Branch, ...]


def outline(graph: LabelledGraph) -> Outline:
    """Return the longest path of the graph, the one with the least indices, and the rest."""
    chain = _longest_path(graph.inputs)
    place = {node: position for position, node in enumerate(chain)}
    start, end = _anchors(graph.inputs, place)
    branches = []
    for index, sources in enumerate(graph.inputs):
        if index not in place:
            branches.append(Branch(start[index], end[index], graph.labels[index]))
        for source in sources:
            if index in place and place.get(source, -1) == place[index] - 1:
                continue
            branches.append(Branch(start[source], end[index], ""))
    sizes = graph.sizes or (0.0,) * len(graph.labels)
    return Outline(
        tuple(graph.labels[node] for node in chain),
        tuple(sizes[node] for node in chain),
        tuple(sorted(branches)),
    )


def edit_distances(rows: Sequence[Outline], columns: Sequence[Outline]) -> Matrix:
    """Return the distance of every row from every column, (rows, columns).

    A node that one chain has more costs 1, another label costs 1, another size up to 1.
    """
    return _chain_distances(rows, columns) + _branch_distances(rows, columns)


def _longest_path(inputs: Sequence[tuple[int, ...]]) -> list[int]:
    before: list[int | None] = []
    length: list[int] = []
    for sources in inputs:
        best = max(sources, key=lambda source: (length[source], -source), default=None)
        before.append(best)
        length.append(1 if best is None else length[best] + 1)
    node: int | None = max(range(len(inputs)), key=lambda index: (length[index], -index))
    path = []
    while node is not None:
        path.append(node)
        node = before[node]
    return path[::-1]


def _anchors(
    inputs: Sequence[tuple[int, ...]], place: dict[int, int]
) -> tuple[list[int], list[int]]:
    """Return for each node the places of the chain just before and behind it, its own if on it."""
    count, last = len(inputs), len(place) - 1
    start, end = [0] * count, [last] * count
    for index, sources in enumerate(inputs):
        behind = max((start[source] for source in sources), default=0)
        start[index] = place.get(index, behind)
    for index in range(count - 1, -1, -1):
        end[index] = place.get(index, end[index])
        for source in inputs[index]:
            end[source] = min(end[source], end[index])
    return start, end


def _chain_distances(rows: Sequence[Outline], columns: Sequence[Outline]) -> Matrix:
    """Align many pairs of chains at once, those of like length (Needleman and Wunsch, 1970)."""
    ids: dict[str, int] = {}
    first, second = _padded(rows, ids), _padded(columns, ids)
    i, j = (side.ravel() for side in np.indices((len(rows), len(columns))))
    order = np.argsort(first.lengths[i], kind="stable")
    found = np.empty(i.size)
    for begin in range(0, i.size, _PAIRS_AT_ONCE):
        part = order[begin : begin + _PAIRS_AT_ONCE]
        found[part] = _align(first, i[part], second, j[part])
    return found.reshape(len(rows), len(columns))


@dataclass(frozen=True, slots=True, eq=False)
class _Chains:
    """Chains of unequal length in arrays of shape (chains, longest)."""

    labels: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]


def _padded(outlines: Sequence[Outline], ids: dict[str, int]) -> _Chains:
    longest = max((len(one.labels) for one in outlines), default=0)
    labels = np.full((len(outlines), longest), _PADDING, np.int32)
    sizes = np.zeros((len(outlines), longest), np.float32)
    for place, one in enumerate(outlines):
        labels[place, : len(one.labels)] = [ids.setdefault(label, len(ids)) for label in one.labels]
        sizes[place, : len(one.sizes)] = one.sizes
    return _Chains(labels, sizes, np.array([len(one.labels) for one in outlines], np.int64))


def _align(
    first: _Chains,
    i: npt.NDArray[np.intp],
    second: _Chains,
    j: npt.NDArray[np.intp],
) -> npt.NDArray[np.float32]:
    """Return the alignment cost of the pairs (i, j).

    Row by row: of the three ways to reach a cell, the one from the left is a running minimum once
    the column's number is subtracted.
    """
    labels, sizes, lengths = second.labels[j], second.sizes[j], second.lengths[j]
    columns = np.arange(labels.shape[1] + 1, dtype=np.float32)
    cost = np.broadcast_to(columns, (len(i), len(columns))).copy()
    result = np.take_along_axis(cost, lengths[:, None], axis=1)[:, 0]
    for row in range(int(first.lengths[i].max(initial=0))):
        label, size = first.labels[i, row, None], first.sizes[i, row, None]
        change = np.where(label == labels, np.minimum(np.abs(size - sizes), 1), np.float32(1))
        cost[:, 1:] = np.minimum(cost[:, 1:] + 1, cost[:, :-1] + change)
        cost[:, 0] += 1
        cost = np.minimum.accumulate(cost - columns, axis=1) + columns
        ends = first.lengths[i] == row + 1
        result[ends] = np.take_along_axis(cost[ends], lengths[ends, None], axis=1)[:, 0]
    return result


def _branch_distances(rows: Sequence[Outline], columns: Sequence[Outline]) -> Matrix:
    """Match the branches of all pairs, equal sets of branches once."""
    ids: dict[str, int] = {}
    first, rows_in = _distinct(rows, ids)
    second, columns_in = _distinct(columns, ids)
    bounds = np.cumsum([0, *(len(branches) for branches in second)]).tolist()
    all_second = np.concatenate([np.empty((0, 3), np.int64), *second])
    found = np.zeros((len(first), len(second)))
    for i, branches in enumerate(first):
        cost = _moving_costs(branches, all_second)
        for j, (begin, end) in enumerate(itertools.pairwise(bounds)):
            found[i, j] = abs(len(branches) - (end - begin))  # what is left over costs 1 each
            if len(branches) and end > begin:
                chosen = cost[:, begin:end]
                found[i, j] += chosen[linear_sum_assignment(chosen)].sum()  # Kuhn, 1955
    return np.asarray(found[np.ix_(rows_in, columns_in)], dtype=np.float64)


def _distinct(
    outlines: Sequence[Outline], ids: dict[str, int]
) -> tuple[list[npt.NDArray[np.int64]], list[int]]:
    """Return the different sets of branches, (branches, 3) each, and which one each outline has."""
    places: dict[tuple[Branch, ...], int] = {}
    which = [places.setdefault(one.branches, len(places)) for one in outlines]
    arrays = [
        np.array(
            [(start, end, ids.setdefault(label, len(ids))) for start, end, label in branches],
            dtype=np.int64,
        ).reshape(-1, 3)
        for branches in places
    ]
    return arrays, which


def _moving_costs(here: npt.NDArray[np.int64], there: npt.NDArray[np.int64]) -> Matrix:
    """Return the cost of making one branch another, (here, there).

    To move costs at most 1 (arXiv:1806.10282, eq. 5), to rename costs 1.
    """
    start, end, label = here.T[:, :, None]
    other_start, other_end, other_label = there.T[:, None, :]
    moved = np.abs(start - other_start) + np.abs(end - other_end)
    reach = np.maximum(np.maximum(start, other_start) + np.maximum(end, other_end), 1)
    return np.where(label == other_label, moved / reach, 1.0)
