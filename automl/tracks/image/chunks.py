"""Chunks: which rows of a listing one task has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """Limits of one chunk; one row is always allowed.

    Attributes:
        rows: how many it may have.
        size_bytes: of their files together.
    """

    rows: int
    size_bytes: int


def cut(sizes: NDArray[np.int64], limits: ChunkLimits) -> Iterator[range]:
    """Yield ranges of rows that follow each other.

    Args:
        sizes: bytes of each row's file.
        limits: of a chunk.
    """
    ends, start, before = np.cumsum(sizes), 0, 0
    while start < len(sizes):
        fitting = int(np.searchsorted(ends, before + limits.size_bytes, side="right"))
        end = max(start + 1, min(fitting, start + limits.rows, len(sizes)))
        yield range(start, end)
        start, before = end, int(ends[end - 1])


def cut_changed(
    sizes: NDArray[np.int64], changed: NDArray[np.bool_], limits: ChunkLimits
) -> Iterator[NDArray[np.int64]]:
    """Yield chunks of the rows that have changed.

    A chunk of all rows that has changed as a whole stays one: what a killed run has done does not
    move the others, so that it writes the same blocks as one that nobody disturbed. What has
    changed of the rest is put together.

    Args:
        sizes: bytes of each row's file.
        changed: which rows those are.
        limits: of a chunk.
    """
    rest = [np.zeros(0, np.int64)]
    for chunk in cut(sizes, limits):
        members = chunk.start + np.flatnonzero(changed[chunk.start : chunk.stop])
        if len(members) == len(chunk):
            yield members
        else:
            rest.append(members)
    left = np.concatenate(rest)
    for part in cut(sizes[left], limits):
        yield left[part.start : part.stop]
