"""Features that the kernel compares: rows of candidates, and distances between them.

Every distance here is a squared Euclidean distance between feature vectors, so that exp(-d/l) is a
positive semidefinite kernel for every length l > 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from automl.domain.candidate import Candidate
from automl.search.arrays import Matrix
from automl.search.recent import Recent
from automl.search.space import SearchSpace
from automl.search.surrogate.edit_distance import Outline, edit_distances, outline
from automl.search.surrogate.weisfeiler_lehman import ROUNDS, WeisfeilerLehman

Distances = Mapping[str, Matrix]

_FEATURES_KEPT = 16_384  # some 10 kB each; a history's own are asked for at every refit

SLOTS, EDIT, COSTS, GENES, HERITAGE = "slots", "edit", "costs", "genes", "heritage"
NEIGHBOURHOODS = tuple(f"neighbourhoods_{radius}" for radius in range(ROUNDS + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """One candidate as the kernel sees it.

    Attributes:
        neighbourhoods: Weisfeiler-Lehman counts for each radius.
        outline: the graph's main chain and branches.
        slots: number of the label in each slot.
        genes: scaled training genes.
        costs: binary logarithms of what is known to be spent.
    """

    neighbourhoods: Sequence[Counter[int]]
    outline: Outline
    slots: tuple[int, ...]
    genes: tuple[float, ...]
    costs: tuple[float, ...]


class Encoder:
    """Turns candidates into features, each candidate once.

    Args:
        space: describes the candidates.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._neighbourhoods = WeisfeilerLehman()
        self._labels: dict[str, int] = {}
        self._known = Recent[str, Features](_FEATURES_KEPT)

    def encode(self, candidate: Candidate) -> Features:
        """Return the candidate's features."""
        return self._known.get(candidate.identity, lambda: self._encode(candidate))

    def _encode(self, candidate: Candidate) -> Features:
        described = self._space.describe(candidate)
        graph = described.graph
        slots: tuple[int, ...] = ()
        if graph.slots:
            places = sorted(zip(graph.slots, graph.labels, strict=True))
            slots = tuple(self._labels.setdefault(label, len(self._labels)) for _, label in places)
        return Features(
            neighbourhoods=self._neighbourhoods.encode(graph),
            outline=outline(graph),
            slots=slots,
            genes=described.genes,
            costs=tuple(float(np.log2(described.costs[name])) for name in sorted(described.costs)),
        )


class View:
    """Viewpoints that architectures are seen from; they make the edit distance a feature vector.

    Args:
        landmarks: architectures whose closeness exp(-d/scale) is a feature each.
        scale: edit distance over which the closeness falls to 1/e.
    """

    def __init__(self, landmarks: Sequence[Outline] = (), scale: float = 1.0) -> None:
        self.landmarks, self.scale = landmarks, scale
        self._known: dict[Features, Matrix] = {}

    def closeness(self, rows: Sequence[Features]) -> Matrix:
        """Return the closeness of rows to the landmarks, (rows, landmarks)."""
        news = [row for row in dict.fromkeys(rows) if row not in self._known]
        if news:
            apart = edit_distances([row.outline for row in news], self.landmarks)
            self._known.update(zip(news, np.exp(-apart / self.scale), strict=True))
        return np.array([self._known[row] for row in rows])


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Feature vectors of many candidates.

    Attributes:
        counts: Weisfeiler-Lehman counts by radius, a row for each candidate.
        arrays: the other kinds, a row for each candidate.
    """

    counts: Mapping[str, csr_array[np.float64]]
    arrays: Mapping[str, Matrix]

    @classmethod
    def of(
        cls, rows: Sequence[Features], view: View, heritage: Sequence[float] | None = None
    ) -> Table:
        """Return the vectors of `rows`, at least one.

        Args:
            rows: what candidates are.
            view: where architectures are seen from.
            heritage: how far each candidate's inherited weights are trained; None leaves it out.
        """
        counts = {
            kind: _sparse([row.neighbourhoods[radius] for row in rows])
            for radius, kind in enumerate(NEIGHBOURHOODS)
        }
        arrays = {
            SLOTS: np.array([row.slots for row in rows], dtype=np.float64),
            GENES: np.array([row.genes for row in rows], dtype=np.float64),
            COSTS: np.array([row.costs for row in rows], dtype=np.float64),
        }
        if heritage is not None:
            arrays[HERITAGE] = np.array(heritage, dtype=np.float64)[:, None]
        if view.landmarks:
            arrays[EDIT] = view.closeness(rows)
        return cls(counts, arrays)

    def __add__(self, other: Table) -> Table:
        """Return the rows of both, these first."""
        counts = {kind: _below(above, other.counts[kind]) for kind, above in self.counts.items()}
        arrays = {
            kind: np.concatenate([above, other.arrays[kind]]) for kind, above in self.arrays.items()
        }
        return Table(counts, arrays)

    @property
    def size(self) -> int:
        """Number of candidates."""
        return len(self.arrays[SLOTS])


def distances(first: Table, second: Table) -> dict[str, Matrix]:
    """Return squared distances (rows of first, rows of second) for each kind of feature."""
    found = {kind: _count_distances(a, second.counts[kind]) for kind, a in first.counts.items()}
    for kind, a in first.arrays.items():
        b = second.arrays[kind]
        if a.shape[1]:
            found[kind] = _label_distances(a, b) if kind == SLOTS else _vector_distances(a, b)
    return found


def _sparse(counts: Sequence[Counter[int]]) -> csr_array[np.float64]:
    starts = np.cumsum([0, *(len(row) for row in counts)])
    columns = np.fromiter((key for row in counts for key in row), np.int64, count=starts[-1])
    values = np.fromiter((n for row in counts for n in row.values()), np.float64, count=starts[-1])
    width = int(columns.max()) + 1 if len(columns) else 1
    return csr_array((values, columns, starts), shape=(len(counts), width))


def _below(above: csr_array[np.float64], under: csr_array[np.float64]) -> csr_array[np.float64]:
    starts = np.concatenate([above.indptr, above.indptr[-1] + under.indptr[1:]])
    columns = np.concatenate([above.indices, under.indices])
    shape = (above.shape[0] + under.shape[0], max(above.shape[1], under.shape[1]))
    return csr_array((np.concatenate([above.data, under.data]), columns, starts), shape=shape)


def _count_distances(a: csr_array[np.float64], b: csr_array[np.float64]) -> Matrix:
    width = max(a.shape[1], b.shape[1])
    a, b = (
        csr_array((one.data, one.indices, one.indptr), shape=(one.shape[0], width))
        for one in (a, b)
    )
    products: Matrix = (a @ b.T).toarray()
    squares = [np.add.reduceat(one.data**2, one.indptr[:-1]) for one in (a, b)]
    # whole numbers, hence exact
    return np.asarray(squares[0][:, None] + squares[1][None, :] - 2 * products, dtype=np.float64)


def _label_distances(a: Matrix, b: Matrix) -> Matrix:
    different = [left[:, None] != right[None, :] for left, right in zip(a.T, b.T, strict=True)]
    return np.asarray(np.sum(different, axis=0), dtype=np.float64)


def _vector_distances(a: Matrix, b: Matrix) -> Matrix:
    total = np.zeros((len(a), len(b)))
    for left, right in zip(a.T, b.T, strict=True):  # differences are exactly 0 for equal rows
        total += np.square(left[:, None] - right[None, :])
    return total
