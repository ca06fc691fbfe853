from __future__ import annotations

import csv
import gzip
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.candidate import Candidate
from benchmarks.nasbench201 import (
    EDGES,
    OPERATIONS,
    TABLE,
    NasBench201Space,
    macs,
    read_table,
    to_cell,
    to_operations,
)

SPACE = NasBench201Space()
BEST = to_cell(
    (
        *("nor_conv_3x3", "nor_conv_3x3", "nor_conv_3x3"),
        *("skip_connect", "nor_conv_1x1", "nor_conv_3x3"),
    )
)
FOLDER = "../nasbench201"  # beside the datasets
cells = st.tuples(*[st.sampled_from(OPERATIONS)] * len(EDGES))


def write_table(path: Path, rows: list[tuple[str, float]]) -> Path:
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([("architecture", "cifar10_valid"), *rows])
    return path


@pytest.mark.needs_shared(FOLDER)
def test_the_table_has_every_cell_once_and_the_known_best() -> None:
    table = read_table()

    assert len(table.scores) == 5**6 == 15_625
    assert table.best == 84.892
    assert list(table.scores.values()).count(84.892) == 1
    assert table.scores[BEST] == 84.892
    assert all(SPACE.contains(Candidate(genotype=c, hyperparameters={})) for c in table.scores)


@pytest.mark.needs_shared(FOLDER)
def test_columns_of_the_same_file_are_tables_of_their_own() -> None:
    validation, test = read_table(), read_table(TABLE, "cifar10_test")

    assert validation.name != test.name
    assert validation.scores != test.scores


def test_a_table_that_lacks_a_cell_is_refused(tmp_path: Path) -> None:
    rows = [(to_cell(cell), 1.0) for cell in product(OPERATIONS, repeat=6)]
    path = write_table(tmp_path / "scores.csv.gz", rows[1:])

    with pytest.raises(ValueError, match=r"scores.csv.gz: 1 cells are missing .*none~0"):
        read_table(path)


def test_the_space_has_as_many_candidates_as_there_are_cells() -> None:
    candidates = [SPACE.candidate(cell) for cell in product(OPERATIONS, repeat=6)]

    assert len({candidate.genotype for candidate in candidates}) == 15_625
    assert len({candidate.identity for candidate in candidates}) == 15_625


@given(cell=cells)
def test_cells_survive_being_written(cell: tuple[str, ...]) -> None:
    assert to_operations(to_cell(cell)) == cell


@given(cell=cells)
def test_the_neighbours_are_all_that_differ_in_one_edge(cell: tuple[str, ...]) -> None:
    neighbours = [to_operations(one.genotype) for one in SPACE.neighbours(SPACE.candidate(cell))]

    assert len(set(neighbours)) == 6 * 4
    assert all(sum(a != b for a, b in zip(one, cell, strict=True)) == 1 for one in neighbours)


def test_mutations_reach_every_neighbour_about_as_often() -> None:
    rng, start = np.random.default_rng(0), SPACE.candidate([OPERATIONS[0]] * 6)
    reached = Counter(SPACE.mutate(start, rng).genotype for _ in range(2400))

    assert {*reached} == {one.genotype for one in SPACE.neighbours(start)}
    assert min(reached.values()) > 60
    assert max(reached.values()) < 150


def test_samples_are_uniform_on_every_edge() -> None:
    rng = np.random.default_rng(0)
    drawn = [to_operations(SPACE.sample((), rng).genotype) for _ in range(2000)]

    for edge in range(6):
        counts = Counter(cell[edge] for cell in drawn)
        assert {*counts} == {*OPERATIONS}
        assert all(count == pytest.approx(400, abs=80) for count in counts.values())


def test_the_graph_follows_the_paths_of_the_cell() -> None:
    graph = SPACE.describe(Candidate(genotype=BEST, hyperparameters={})).graph
    node = {slot: place for place, slot in enumerate(graph.slots)}

    assert graph.slots == ("input", "0-1", "0-2", "1-2", "0-3", "1-3", "2-3", "output")
    assert graph.labels[node["0-3"]] == "skip_connect"
    assert graph.labels[node["1-2"]] == "nor_conv_3x3"
    reads = {
        slot: {graph.slots[source] for source in inputs}
        for slot, inputs in zip(graph.slots, graph.inputs, strict=True)
    }
    assert reads == {
        "input": set(),
        "0-1": {"input"},
        "0-2": {"input"},
        "0-3": {"input"},
        "1-2": {"0-1"},
        "1-3": {"0-1"},
        "2-3": {"0-2", "1-2"},
        "output": {"0-3", "1-3", "2-3"},
    }
    assert all(max(inputs, default=-1) < place for place, inputs in enumerate(graph.inputs))


@pytest.mark.parametrize("genotype", ["", "{}", BEST[1:], BEST.replace("skip", "hop"), BEST + BEST])
def test_what_is_no_cell_is_not_contained(genotype: str) -> None:
    assert SPACE.contains(Candidate(genotype=BEST, hyperparameters={}))
    assert not SPACE.contains(Candidate(genotype=genotype, hyperparameters={}))


@pytest.mark.parametrize(
    ("operation", "millions"), [("none", 7.78305), ("nor_conv_3x3", 220.11969)]
)
def test_the_multiply_adds_are_those_of_the_benchmark(operation: str, millions: float) -> None:
    """The least and the most of its API, which also counts the ten additions of the last bias."""
    cell = SPACE.candidate([operation] * len(EDGES))

    assert SPACE.describe(cell).spent == pytest.approx(millions * 1e6 - 10, abs=0.5)


def test_only_convolutions_cost_multiply_adds() -> None:
    least, kernel = macs(["none"] * 6), macs(["nor_conv_1x1", *["none"] * 5])

    assert macs(["skip_connect", "avg_pool_3x3", *["none"] * 4]) == least
    assert macs(["none", "nor_conv_3x3", *["none"] * 4]) - least == 9 * (kernel - least) > 0
