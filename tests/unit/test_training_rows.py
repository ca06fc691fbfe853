from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from automl.tracks.image.rows import joined, most_bytes
from automl.training.capacity import machine_bytes
from automl.training.examples import Examples

FIRST = Examples(np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3), np.arange(5))
SECOND = Examples(np.full((3, 2, 2, 3), 9, np.uint8), np.arange(3))


def in_a_file(rows: Examples, folder: Path) -> Examples:
    with tempfile.TemporaryFile(dir=folder) as file:
        images = np.memmap(file, np.uint8, "w+", shape=rows.images.shape)
    images[:] = rows.images
    return Examples(images, rows.labels)


def test_rows_are_joined_where_they_are(tmp_path: Path) -> None:
    in_memory = joined(FIRST, SECOND)
    mapped = joined(in_a_file(FIRST, tmp_path), SECOND)

    assert not isinstance(in_memory.images, np.memmap)
    assert isinstance(mapped.images, np.memmap)
    for found in (in_memory, mapped):
        np.testing.assert_array_equal(found.images[:5], FIRST.images)
        np.testing.assert_array_equal(found.images[5:], SECOND.images)
        np.testing.assert_array_equal(found.labels, [0, 1, 2, 3, 4, 0, 1, 2])


def test_processes_share_the_memory_for_rows() -> None:
    assert most_bytes(1) < machine_bytes() / 2
    assert abs(most_bytes(1) - 4 * most_bytes(4)) <= 4
