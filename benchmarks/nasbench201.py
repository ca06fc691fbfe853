"""The cells of NAS-Bench-201 as a search space (Dong and Yang, ICLR 2020, arXiv:2001.00326).

A cell has four points, 0 to 3; each of the six edges between them carries one of five operations.
The space knows the cells; how good each of them is stands in a table, of which there may be many.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.trial import Trial
from automl.search.space import Description, LabelledGraph
from benchmarks.shared_data import shared_dataset

TABLE = shared_dataset("../nasbench201") / "cifar10_12epochs.csv.gz"
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # in the order of the cell strings
EDGE_NAMES = tuple(f"{start}-{end}" for start, end in EDGES)
_OUTPUT_POINT = 3
# Multiply-adds for one image of CIFAR-10 (arXiv:2001.00326, sec. 2.1): 15 cells, five each with 16,
# 32 and 64 channels at 32, 16 and 8 pixels, so that a kernel's weight costs the same in all.
_CELLS = 15
_MACS_PER_KERNEL_PIXEL = 16 * 16 * 32 * 32
_MACS = {"nor_conv_1x1": _MACS_PER_KERNEL_PIXEL, "nor_conv_3x3": 9 * _MACS_PER_KERNEL_PIXEL}
# the first convolution, two residual blocks (9/2, 9 and 1/2 such kernel pixels) and the logits
_FIXED_MACS = 9 * 3 * 16 * 32 * 32 + 2 * 14 * _MACS_PER_KERNEL_PIXEL + 64 * 10
_SLOTS = ("input", *EDGE_NAMES, "output")


def to_cell(operations: Sequence[str]) -> str:
    """Return the cell string, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`, of an operation per edge."""
    ends: dict[int, list[str]] = {}
    for (start, end), operation in zip(EDGES, operations, strict=True):
        ends.setdefault(end, []).append(f"{operation}~{start}|")
    return "+".join("|" + "".join(parts) for parts in ends.values())


@cache
def to_operations(cell: str) -> tuple[str, ...]:
    """Return the operation of each edge, in the order of `EDGES`."""
    parts = (part for point in cell.split("+") for part in point.strip("|").split("|"))
    return tuple(part.partition("~")[0] for part in parts)


def macs(operations: Sequence[str]) -> int:
    """Return the multiply-adds of the network for one image, 7.8 to 220 millions."""
    return _FIXED_MACS + _CELLS * sum(_MACS.get(operation, 0) for operation in operations)


@dataclass(frozen=True, slots=True)
class Table:
    """What each cell scores.

    Attributes:
        name: hash of the file, so that results of different tables are kept apart.
        scores: accuracy in per cent, by cell string; all cells of the space.
    """

    name: str
    scores: Mapping[str, float]

    @property
    def best(self) -> float:
        """The highest score."""
        return max(self.scores.values())


def read_table(path: Path = TABLE, column: str = "cifar10_valid") -> Table:
    """Read a gzipped CSV file with the columns `architecture` and `column`.

    Raises:
        ValueError: a cell of the space is missing, or one is not of the space.
    """
    data = path.read_bytes()
    rows = csv.DictReader(gzip.decompress(data).decode().splitlines())
    # Of 25,000 images: three decimals are exact, the others are single precision's rounding.
    scores = {row["architecture"]: round(float(row[column]), 3) for row in rows}
    cells = {to_cell(operations) for operations in product(OPERATIONS, repeat=len(EDGES))}
    if scores.keys() != cells:
        odd = sorted(scores.keys() ^ cells)
        raise ValueError(f"{path}: {len(odd)} cells are missing or unknown, such as {odd[0]!r}")
    return Table(hashlib.sha256(data + column.encode()).hexdigest()[:16], scores)


class NasBench201Space:
    """All cells, each a neighbour of those that differ from it in one edge.

    There are no weights to inherit, so that no candidate has a parent.
    """

    def __init__(self) -> None:
        self._candidates: dict[tuple[str, ...], Candidate] = {}
        self._descriptions: dict[str, Description] = {}

    def seeds(self) -> Sequence[Candidate]:
        """Return nothing: no cell comes before the others."""
        return ()

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        """Return any cell, all being equally likely; `parents` do not matter."""
        return self.candidate([OPERATIONS[i] for i in rng.integers(5, size=len(EDGES))])

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return one of the 24 neighbours, all being equally likely."""
        neighbours = self.neighbours(candidate)
        return neighbours[int(rng.integers(len(neighbours)))]

    def neighbours(self, candidate: Candidate) -> list[Candidate]:
        """Return the cells that differ in one edge."""
        cell = to_operations(candidate.genotype)
        return [
            self.candidate((*cell[:edge], operation, *cell[edge + 1 :]))
            for edge, present in enumerate(cell)
            for operation in OPERATIONS
            if operation != present
        ]

    def candidate(self, operations: Sequence[str]) -> Candidate:
        """Return the candidate with these operations, in the order of `EDGES`."""
        key = tuple(operations)
        if key not in self._candidates:
            self._candidates[key] = Candidate(genotype=to_cell(key), hyperparameters={})
        return self._candidates[key]

    def contains(self, candidate: Candidate) -> bool:
        """Return whether the genotype is the string of a cell."""
        operations = to_operations(candidate.genotype)
        return (
            len(operations) == len(EDGES)
            and {*operations} <= {*OPERATIONS}
            and to_cell(operations) == candidate.genotype
        )

    def describe(self, candidate: Candidate) -> Description:
        """Return the graph whose nodes are the operations, between an input and an output.

        An operation reads those that end where it starts. What is spent are the multiply-adds.
        """
        cell = candidate.genotype
        if cell not in self._descriptions:
            operations = to_operations(cell)
            graph = LabelledGraph(("input", *operations, "output"), _INPUTS, slots=_SLOTS)
            self._descriptions[cell] = Description(graph, spent=macs(operations))
        return self._descriptions[cell]


def _readings() -> tuple[tuple[int, ...], ...]:
    """Return the inputs of each node of a cell's graph; node 0 is the input, i + 1 is edge i."""
    ending = {
        point: tuple(i + 1 for i, (_, end) in enumerate(EDGES) if end == point)
        for point in range(_OUTPUT_POINT + 1)
    }
    return ((), *((ending[start] or (0,)) for start, _ in EDGES), ending[_OUTPUT_POINT])


_INPUTS = _readings()
