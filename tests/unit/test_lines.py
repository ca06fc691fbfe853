from __future__ import annotations

import numpy as np
import pytest
import torch

from automl.training.lines import Lines, line_bytes


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("margin", [0, 1, 3])
def test_shifted_images_repeat_their_border(margin: int, channels: int) -> None:
    rng = np.random.default_rng(margin)
    images = rng.integers(0, 256, (5, 6, 6, channels), dtype=np.uint8)
    lines = Lines.of(torch.from_numpy(images), margin)
    places, shifts = np.array([4, 0, 2, 4]), rng.integers(-margin, margin + 1, 4)
    rows = rng.integers(0, 6, (4, 6))

    found = lines.shifted(*(torch.from_numpy(x) for x in (places, rows, shifts[:, None])))

    columns = np.clip(np.arange(6) + shifts[:, None], 0, 5)
    expected = images[places[:, None, None], rows[:, :, None], columns[:, None, :]]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(lines.images(torch.from_numpy(places)), images[places])
    assert lines.values.nbytes == 5 * 6 * line_bytes(6, channels, margin)


def test_without_a_margin_the_images_are_not_copied() -> None:
    images = torch.zeros((2, 4, 4, 3), dtype=torch.uint8)

    assert Lines.of(images, 0).values.data_ptr() == images.data_ptr()
