"""Chunks of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from automl.tracks.image import chunks as chunks_of
from automl.tracks.image.chunks import ChunkLimits

SIZES = st.lists(st.integers(0, 12), max_size=40)
LIMITS = st.builds(ChunkLimits, st.integers(1, 6), st.integers(1, 30))


def cut(sizes: Sequence[int], limits: ChunkLimits) -> list[range]:
    return list(chunks_of.cut(np.asarray(sizes, np.int64), limits))


def cut_changed(
    sizes: Sequence[int], changed: Sequence[bool], limits: ChunkLimits
) -> list[list[int]]:
    columns = (np.asarray(sizes, np.int64), np.asarray(changed, np.bool_))
    return [chunk.tolist() for chunk in chunks_of.cut_changed(*columns, limits)]


@given(sizes=SIZES, limits=LIMITS)
def test_chunks_are_all_rows_in_their_order_within_the_limits(
    sizes: list[int], limits: ChunkLimits
) -> None:
    chunks = [list(chunk) for chunk in cut(sizes, limits)]

    assert [row for chunk in chunks for row in chunk] == list(range(len(sizes)))
    for chunk in chunks:
        assert len(chunk) <= limits.rows
        assert len(chunk) == 1 or sum(sizes[row] for row in chunk) <= limits.size_bytes


@given(sizes=SIZES, limits=LIMITS, data=st.data())
def test_what_a_killed_run_has_finished_does_not_move_the_other_chunks(
    sizes: list[int], limits: ChunkLimits, data: st.DataObject
) -> None:
    undisturbed = cut_changed(sizes, [True] * len(sizes), limits)
    finished = data.draw(st.lists(st.sampled_from(undisturbed))) if undisturbed else []
    done = {row for chunk in finished for row in chunk}

    rest = cut_changed(sizes, [row not in done for row in range(len(sizes))], limits)

    assert rest == [chunk for chunk in undisturbed if chunk not in finished]


@given(sizes=SIZES, limits=LIMITS, data=st.data())
def test_scattered_changes_are_put_together(
    sizes: list[int], limits: ChunkLimits, data: st.DataObject
) -> None:
    changed = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))

    chunks = cut_changed(sizes, changed, limits)

    assert sorted(row for chunk in chunks for row in chunk) == [
        row for row, is_changed in enumerate(changed) if is_changed
    ]
    whole = {tuple(chunk) for chunk in cut(sizes, limits)}
    parts = [chunk for chunk in chunks if tuple(chunk) not in whole]
    assert all(len(chunk) <= limits.rows for chunk in parts)


def test_a_hundredth_of_new_rows_is_few_chunks() -> None:
    changed = [row % 100 == 0 for row in range(10_000)]

    assert len(cut_changed([1] * 10_000, changed, ChunkLimits(512, 10**9))) == 1
