from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from automl.training.examples import Examples
from automl.training.rows import ResidentRows, Rows, StreamedRows, rows_on

CPU = torch.device("cpu")
EXAMPLES = Examples(
    np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3)).astype(np.uint8), np.arange(50)
)


@pytest.mark.parametrize("kind", [ResidentRows, StreamedRows])
@pytest.mark.parametrize("margin", [0, 2])
def test_batches_follow_the_order(kind: type[ResidentRows | StreamedRows], margin: int) -> None:
    rows: Rows = kind(EXAMPLES, CPU, margin)
    order = np.random.default_rng(1).permutation(50)

    batches = list(rows.batches(order, 16))

    labels = torch.cat([batch.labels for batch in batches])
    images = torch.cat([batch.images for batch in batches])
    np.testing.assert_array_equal(labels, order)
    np.testing.assert_array_equal(images, EXAMPLES.images[order])
    assert [len(batch.labels) for batch in batches] == [16, 16, 16, 2]


def test_what_is_not_read_ends_with_its_reader() -> None:
    batches = StreamedRows(EXAMPLES, CPU).batches(np.arange(50), 1)
    next(batches)

    batches.close()  # waits for the thread


def test_an_error_of_the_thread_reaches_the_reader() -> None:
    batches = StreamedRows(EXAMPLES, CPU).batches(np.array([1, 99]), 1)

    next(batches)
    with pytest.raises(IndexError, match="99"):
        next(batches)


def test_images_in_a_file_are_streamed(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "images", np.uint8, "w+", shape=EXAMPLES.images.shape)
    mapped[:] = EXAMPLES.images

    rows = rows_on(Examples(mapped, EXAMPLES.labels), CPU)

    assert isinstance(rows, StreamedRows)
    batch = next(rows.batches(np.arange(50), 8))
    np.testing.assert_array_equal(batch.images, EXAMPLES.images[:8])
    assert isinstance(rows_on(EXAMPLES, CPU), ResidentRows)
