from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import ClassVar

import numpy as np
import pytest

from automl.domain.candidate import Candidate
from automl.search.space import Description, LabelledGraph
from automl.search.surrogate.edit_distance import edit_distances
from automl.search.surrogate.features import (
    COSTS,
    EDIT,
    GENES,
    NEIGHBOURHOODS,
    SLOTS,
    Encoder,
    Features,
    Table,
    View,
    distances,
)
from automl.tracks.image.space import NetworkMorphismSpace
from tests.spaces import Words, candidate

WORDS = Words(letters="abcD", longest=6, rates=(0.1, 0.5, 0.9))


class Counted(Words):
    """Words that count how often they are described."""

    described: ClassVar[Counter[str]] = Counter()

    def describe(self, candidate: Candidate) -> Description:
        self.described[candidate.identity] += 1
        return super().describe(candidate)


class Cells(Words):
    """Words of a fixed length: every letter has its place, given in any order."""

    def describe(self, candidate: Candidate) -> Description:
        word = candidate.genotype
        slots = tuple(f"slot {place}" for place in range(len(word)))
        inputs = tuple((place - 1,) if place else () for place in range(len(word)))
        graph = LabelledGraph(tuple(word), inputs, slots=slots)
        if word.startswith("b"):  # the order of places that do not depend on each other is free
            graph = replace(graph, labels=graph.labels[::-1], slots=slots[::-1])
        return Description(graph)


def encoded(candidates: Sequence[Candidate], encoder: Encoder | None = None) -> list[Features]:
    return [(encoder or Encoder(WORDS)).encode(one) for one in candidates]


@cache
def drawn(count: int, seed: int) -> tuple[Features, ...]:
    encoder = Encoder(WORDS)
    return tuple(encoder.encode(one) for one in WORDS.draws(count, np.random.default_rng(seed)))


def view_of(rows: Sequence[Features]) -> View:
    return View([row.outline for row in rows[:5]], scale=2.0)


def difference(first: Counter[int], second: Counter[int]) -> int:
    return sum((first[key] - second[key]) ** 2 for key in first.keys() | second.keys())


def test_distances_are_squared_differences_of_features() -> None:
    rows = drawn(12, seed=0)
    view = view_of(rows)
    table = Table.of(rows, view)

    found = distances(table, table)

    near = np.exp(-edit_distances([row.outline for row in rows], view.landmarks) / view.scale)
    for i, first in enumerate(rows):
        for j, second in enumerate(rows):
            for radius, kind in enumerate(NEIGHBOURHOODS):
                expected = difference(first.neighbourhoods[radius], second.neighbourhoods[radius])
                assert found[kind][i, j] == expected
            assert found[EDIT][i, j] == pytest.approx(((near[i] - near[j]) ** 2).sum())
            assert found[GENES][i, j] == (first.genes[0] - second.genes[0]) ** 2
            assert found[COSTS][i, j] == (first.costs[0] - second.costs[0]) ** 2
    assert SLOTS not in found


def test_distances_of_parts_are_parts_of_the_distances() -> None:
    rows = drawn(20, seed=1)
    view = view_of(rows)
    first, second = Table.of(rows[:13], view), Table.of(rows[13:], view)

    whole = distances(first + second, first + second)

    assert (first + second).size == 20
    for kind, blocks in whole.items():
        assert np.array_equal(distances(first, first)[kind], blocks[:13, :13])
        assert np.array_equal(distances(first, second)[kind], blocks[:13, 13:])
        assert np.array_equal(distances(second, first)[kind], blocks[13:, :13])
        assert np.array_equal(distances(second, second)[kind], blocks[13:, 13:])


def test_a_view_answers_the_same_whatever_it_has_seen_before() -> None:
    rows = drawn(20, seed=2)
    warm, cold = view_of(rows), view_of(rows)
    for start in (0, 3, 11):
        warm.closeness(rows[start:])

    assert np.array_equal(warm.closeness(rows), cold.closeness(rows))


def test_a_candidate_is_no_distance_from_itself_and_some_from_any_other() -> None:
    candidates = WORDS.draws(60, np.random.default_rng(3))
    rows = encoded(candidates, encoder := Encoder(WORDS))
    again = encoded(candidates[::-1], encoder)[::-1]
    view = view_of(rows)

    apart = distances(Table.of(rows, view), Table.of(again, view))
    total = sum(apart.values())

    assert not np.diagonal(total).any()
    assert (total + np.eye(60) > 0).all()
    for matrix in apart.values():
        assert np.array_equal(matrix, matrix.T)


def test_distances_do_not_depend_on_the_order_of_encoding() -> None:
    candidates = WORDS.draws(15, np.random.default_rng(4))
    rows, backwards = encoded(candidates, Encoder(WORDS)), Encoder(WORDS)
    others = encoded(candidates[::-1], backwards)[::-1]

    first = distances(*[Table.of(rows, view_of(rows))] * 2)
    second = distances(*[Table.of(others, view_of(others))] * 2)

    for kind, matrix in first.items():
        assert np.array_equal(matrix, second[kind])


def test_a_candidate_is_described_once() -> None:
    space = Counted()
    encoder, one = Encoder(space), candidate("ab")

    assert encoder.encode(one) is encoder.encode(one.model_copy(update={"parent": 3}))
    assert space.described[one.identity] == 1


def test_places_that_all_candidates_have_are_compared_one_by_one() -> None:
    encoder = Encoder(Cells())
    rows = encoded([candidate("abca"), candidate("abcb"), candidate("bacb")], encoder)

    table = Table.of(rows, View())
    apart = distances(table, table)[SLOTS]

    assert apart.tolist() == [[0, 1, 3], [1, 0, 2], [3, 2, 0]]


def test_without_landmarks_there_is_no_edit_distance() -> None:
    table = Table.of(drawn(3, seed=0), View())

    assert EDIT not in distances(table, table)


def test_widening_any_layer_is_seen() -> None:
    space = NetworkMorphismSpace(image_size=8, classes=3)
    encoder, rng = Encoder(space), np.random.default_rng(0)
    widths = []
    for seed in space.seeds():
        parent = seed.model_copy(update={"parent": 0})
        children = [space.mutate(parent, rng) for _ in range(60)]
        widths += [
            (seed, child)
            for child in children
            if {move["kind"] for move in child.moves} == {"widen"}
        ]
    assert len(widths) > 10
    for seed, child in widths:
        rows = encoded([seed, child], encoder)
        view = View([rows[0].outline], scale=1.0)
        apart = distances(Table.of(rows[:1], view), Table.of(rows[1:], view))
        assert apart[COSTS].item() > 0
        assert apart[EDIT].item() > 0
