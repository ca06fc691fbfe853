"""Numbers of one image: what they measure, exactly and on every machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.tracks.image.statistics import STATISTICS, row_statistics

GREY = np.array([299, 587, 114]) / 1000


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(height=st.integers(1, 140), width=st.integers(1, 140))
def test_an_image_of_any_size_has_every_statistic(height: int, width: int) -> None:
    found = row_statistics(noise(height, width))

    assert list(found) == list(STATISTICS)
    assert all(np.isfinite(value) and value >= 0 for value in found.values())
    assert (found["height"], found["width"]) == (height, width)


@pytest.mark.parametrize(("level", "brightness"), [(0, 0.0), (77, 77.0), (255, 255.0)])
def test_a_plain_image_has_its_light_and_nothing_else(level: int, brightness: float) -> None:
    found = row_statistics(np.full((9, 70, 3), level, np.uint8))

    assert found == {
        "brightness": brightness, "contrast": 0.0, "sharpness": 0.0, "colourfulness": 0.0,
        "height": 9.0, "width": 70.0,
    }  # fmt: skip


def test_light_detail_and_colour_are_those_of_the_papers() -> None:
    pixels = noise(40, 30)
    image = pixels.astype(float)
    grey, (red, green, blue) = image @ GREY, image.transpose(2, 0, 1)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    one, other = red - green, (red + green) / 2 - blue
    colour = np.hypot(one.std(), other.std()) + 0.3 * np.hypot(one.mean(), other.mean())

    found = row_statistics(pixels)

    assert found["brightness"] == pytest.approx(grey.mean(), rel=0.005)
    assert found["contrast"] == pytest.approx(grey.std(), rel=0.01)
    assert found["sharpness"] == pytest.approx((4 * grey[1:-1, 1:-1] - around).var(), rel=0.02)
    assert found["colourfulness"] == pytest.approx(colour)


def test_of_a_large_image_every_nth_pixel_is_looked_at() -> None:
    pixels = noise(130, 64)

    assert row_statistics(pixels)["brightness"] == row_statistics(pixels[::3].copy())["brightness"]


def test_a_blurred_image_is_less_sharp() -> None:
    pixels = noise(64, 64)
    wide = np.pad(pixels, ((0, 1), (0, 1), (0, 0)), mode="edge").astype(float)
    blurred = (wide[1:, 1:] + wide[:-1, 1:] + wide[1:, :-1] + wide[:-1, :-1]) / 4

    assert (
        row_statistics(blurred.astype(np.uint8))["sharpness"]
        < row_statistics(pixels)["sharpness"] / 4
    )
