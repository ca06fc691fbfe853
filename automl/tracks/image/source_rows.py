"""Rows of a source in columns: about a hundred bytes each.

A row is made when somebody asks for it, and is gone when nobody looks at it any more.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from automl.data.texts import Coded, CodedBuilder, Texts, TextsBuilder, each


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as the source names it.

    Attributes:
        path: how the source calls the row; reports use it.
        label: text, without surrounding blanks.
        key: of its file in `Listing.store`; "" for a row of an array, or without a file.
        size_bytes: of the file or array row.
        etag: changes when the row's bytes do.
        problem: why the row cannot be used, or "".
        value: of the location's further column; "" without one.
    """

    path: str
    label: str
    key: str
    size_bytes: int
    etag: str
    problem: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class SourceRows(Sequence[SourceRow]):
    """Rows of a source, in its order.

    Attributes:
        paths, labels, keys, sizes, etags, values: see `SourceRow`; sizes are int64 `[n]`.
        problems: why rows cannot be used, by their places.
    """

    paths: Texts
    labels: Coded
    keys: Texts
    sizes: NDArray[np.int64]
    etags: Texts | Coded
    values: Texts
    problems: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[SourceRow]) -> SourceRows:
        """Return rows as columns."""
        paths, keys, etags, values = (TextsBuilder() for _ in range(4))
        labels, sizes, problems = CodedBuilder(), array("q"), {}
        for place, row in enumerate(rows):
            paths.append(row.path)
            labels.append(row.label)
            keys.append(row.key)
            sizes.append(row.size_bytes)
            etags.append(row.etag)
            values.append(row.value)
            if row.problem:
                problems[place] = row.problem
        return cls(
            paths.built(),
            labels.built(),
            keys.built(),
            np.frombuffer(sizes, np.int64),
            etags.built(),
            values.built(),
            problems,
        )

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, row: int) -> SourceRow: ...

    @overload
    def __getitem__(self, row: slice) -> SourceRows: ...

    def __getitem__(self, row: int | slice) -> SourceRow | SourceRows:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        return SourceRow(
            self.paths[row],
            self.labels[row],
            self.keys[row],
            int(self.sizes[row]),
            self.etags[row],
            self.problems.get(row % len(self), ""),
            self.values[row],
        )

    def __iter__(self) -> Iterator[SourceRow]:
        problems = (self.problems.get(place, "") for place in range(len(self)))
        columns = (self.paths, self.labels, self.keys, each(self.sizes), self.etags)
        yield from map(SourceRow, *columns, problems, self.values)

    def take(self, rows: NDArray[np.integer[Any]]) -> SourceRows:
        """Return some rows, in their order."""
        problems = {}
        if self.problems:
            places = enumerate(each(rows))
            problems = {at: self.problems[row] for at, row in places if row in self.problems}
        return SourceRows(
            self.paths.take(rows),
            self.labels.take(rows),
            self.keys.take(rows),
            self.sizes[rows],
            self.etags.take(rows),
            self.values.take(rows),
            problems,
        )
