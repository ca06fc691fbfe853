"""Chunks: which rows of a listing one task has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """Limits of one chunk; one row is always allowed.

    Attributes:
        rows: how many it may have.
        size_bytes: of their files together.
    """

    rows: int
    size_bytes: int


def cut(sizes: Sequence[int], limits: ChunkLimits) -> Iterator[range]:
    """Yield ranges of rows that follow each other.

    Args:
        sizes: bytes of each row's file.
        limits: of a chunk.
    """
    start = size_bytes = 0
    for row, size in enumerate(sizes):
        if row > start and (row - start == limits.rows or size_bytes + size > limits.size_bytes):
            yield range(start, row)
            start, size_bytes = row, 0
        size_bytes += size
    if start < len(sizes):
        yield range(start, len(sizes))


def cut_changed(
    sizes: Sequence[int], changed: Sequence[bool], limits: ChunkLimits
) -> Iterator[list[int]]:
    """Yield chunks of the rows that have changed.

    A chunk of all rows that has changed as a whole stays one: what a killed run has done does not
    move the others, so that it writes the same blocks as one that nobody disturbed. What has
    changed of the rest is put together.

    Args:
        sizes: bytes of each row's file.
        changed: which rows those are.
        limits: of a chunk.
    """
    rest = []
    for chunk in cut(sizes, limits):
        members = [row for row in chunk if changed[row]]
        if len(members) == len(chunk):
            yield members
        else:
            rest += members
    for part in cut([sizes[row] for row in rest], limits):
        yield [rest[index] for index in part]
