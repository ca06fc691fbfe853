from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.data.odd_pictures import Oddity, modified_z, odd_pictures

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(120, 10, 200)


def with_first(values: np.ndarray, first: float) -> np.ndarray:
    return np.concatenate([[first], values])


@pytest.mark.parametrize(
    ("name", "values", "first", "oddity"),
    [
        ("brightness", NORMAL, 3.0, Oddity.DARK),
        ("brightness", NORMAL, 250.0, Oddity.BRIGHT),
        ("sharpness", np.exp(RNG.normal(5, 0.3, 200)), 1.5, Oddity.BLURRED),
        ("contrast", NORMAL / 3, 0.0, Oddity.OUTLIER),
    ],
)
def test_an_odd_picture_is_told_with_its_number(
    name: str, values: np.ndarray, first: float, oddity: Oddity
) -> None:
    odd = odd_pictures({name: with_first(values, first)})[0]

    assert (odd.row, odd.oddity) == (0, oddity)
    assert odd.score > 3.5
    assert odd.note.startswith(f"{name} {first:.4g}, the median is ")


def test_a_tiny_picture_and_one_of_another_shape_are_told() -> None:
    height, width = np.full(50, 96.0), RNG.normal(128, 6, 50).round()
    height[3], width[3] = 12, 16
    height[7], width[7] = 96, 900

    found = odd_pictures({"height": height, "width": width})

    assert [(odd.row, odd.oddity) for odd in found] == [(3, Oddity.TINY), (7, Oddity.OUTLIER)]


def test_the_long_tail_of_a_skewed_distribution_is_not_odd() -> None:
    contrast = np.sort(np.random.default_rng(0).exponential(10, 400))

    assert (modified_z(contrast) > 3.5).sum() > 10
    assert len(odd_pictures({"contrast": contrast})) < 8


def test_sizes_that_differ_by_less_than_two_are_not_odd() -> None:
    height = np.array([96.0] * 90 + [60.0] * 10)

    assert not odd_pictures({"height": height, "width": np.full(100, 128.0)})


def test_sharp_pictures_are_not_odd() -> None:
    sharpness = with_first(np.linspace(20, 30, 99), 1e6)

    assert not odd_pictures({"sharpness": sharpness})


def test_nothing_is_odd_among_equal_values_or_without_any() -> None:
    assert not odd_pictures({"brightness": np.full(9, 7.0)})
    assert not odd_pictures({"brightness": np.full(9, np.nan)})
    assert not odd_pictures({"brightness": np.zeros(0)})
    assert not odd_pictures({})


def test_a_row_without_a_number_is_not_odd() -> None:
    assert [odd.row for odd in odd_pictures({"brightness": np.array([*NORMAL, np.nan, 0])})] == [
        201
    ]


def test_one_value_beside_many_equal_ones_is_odd() -> None:
    scores = modified_z(np.array([5.0] * 99 + [6.0]))

    assert scores[0] == 0
    assert scores[99] == pytest.approx(1 / (1.253314 * 0.01))


@given(
    values=st.lists(st.integers(-1000, 1000), min_size=1, max_size=40),
    shift=st.integers(-50, 50),
    scale=st.integers(1, 9),
)
def test_scores_do_not_depend_on_units(values: list[int], shift: int, scale: int) -> None:
    numbers = np.array(values, np.float64)

    np.testing.assert_allclose(modified_z(numbers * scale + shift), modified_z(numbers))
