"""Profiles: bins that are the same for every snapshot, and what they count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.data.profile import Bins, Distribution, Profile, Scale

BINS = [
    Bins(scale=Scale.LINEAR, size=4.0),
    Bins(scale=Scale.LINEAR, size=0.3),
    Bins(scale=Scale.LOG, size=8.0),
]
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(values=st.lists(finite, min_size=1), bins=st.sampled_from(BINS))
def test_a_greater_value_is_in_no_lower_bin(values: list[float], bins: Bins) -> None:
    places = bins.of(np.sort(np.array(values))).tolist()

    assert places == sorted(places)


@given(value=st.floats(2.0**-30, 2.0**60))
def test_bins_on_a_logarithmic_scale_are_alike_for_both_signs(value: float) -> None:
    low, zero, high = BINS[-1].of(np.array([-value, 0.0, value]))

    assert -low == high > zero == 0


@pytest.mark.parametrize(
    ("bins", "values"),
    [(BINS[0], [0.0, 3.99, 4.0, -0.1]), (BINS[2], [1.0, 1.09, 1.1, 0.0])],
)
def test_neighbours_share_a_bin(bins: Bins, values: list[float]) -> None:
    first, near, next_one, below = bins.of(np.array(values))

    assert first == near
    assert next_one == first + 1
    assert below < first


@given(values=st.lists(st.floats(), max_size=50), bins=st.sampled_from(BINS))
def test_every_row_is_counted_once(values: list[float], bins: Bins) -> None:
    found = Distribution.of(values, bins)

    assert found.known + found.missing == len(values)
    assert found.missing == sum(not np.isfinite(value) for value in values)
    assert Distribution.model_validate_json(found.model_dump_json()) == found


def test_the_order_of_the_rows_does_not_matter_to_what_is_counted() -> None:
    values = np.random.default_rng(0).normal(size=100)

    one, other = (Distribution.of(each, BINS[1]) for each in (values, values[::-1]))

    assert one.counts == other.counts
    assert one.mean == pytest.approx(values.mean())
    assert one.std == pytest.approx(values.std())


def test_a_profile_counts_labels_copies_and_what_was_left_out() -> None:
    found = Profile.of(6, ["d1", "d2", "d1", "d1"], ["b", "a", "b", "b"], {})

    assert (found.rows_listed, found.rows, found.quarantined, found.duplicates) == (6, 4, 2, 2)
    assert list(found.rows_per_label.items()) == [("a", 1), ("b", 3)]
    assert Profile.model_validate_json(found.model_dump_json()) == found
