from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.data import splits
from automl.data.digest_index import digests as as_digests
from automl.data.splits import PARTS, Part, SplitSettings, Thresholds, parts_of, position
from automl.data.texts import Coded
from automl.domain.specification import Split

SETTINGS = SplitSettings(Split.STRATIFIED, validation_fraction=0.2, test_fraction=0.2, seed=7)


def split_rows(
    names: Sequence[str],
    labels: Sequence[str],
    split: SplitSettings,
    fixed: Mapping[str, Sequence[float]] | None = None,
) -> tuple[list[Part], dict[str, Thresholds]]:
    found = as_digests(map(bytes.fromhex, names), 32)
    parts, thresholds = splits.split_rows(found, Coded.of(labels), split, fixed)
    return [PARTS[part] for part in parts], thresholds


def digests(n: int, start: int = 0) -> list[str]:
    return [blake2b(str(i).encode(), digest_size=32).hexdigest() for i in range(start, start + n)]


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(1, 300),
    test=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    validation=st.sampled_from([0.1, 0.2, 0.4]),
    seed=st.integers(0, 10**9),
)
def test_part_sizes_are_the_exact_roundings(
    n: int, test: float, validation: float, seed: int
) -> None:
    split = SplitSettings(Split.STRATIFIED, validation, test, seed)

    parts, _ = split_rows(digests(n), ["a"] * n, split)

    tests = parts.count(Part.GATE) + parts.count(Part.REPORT)
    assert tests == min(int(n * test + 0.5), n - 1)
    assert parts.count(Part.GATE) - parts.count(Part.REPORT) in {0, 1}
    held_out = parts.count(Part.SELECTION) + parts.count(Part.CALIBRATION)
    assert held_out == min(int(n * validation + 0.5), n - 1 - tests)
    assert abs(parts.count(Part.CALIBRATION) - held_out / 4) <= 0.5


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    test=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    validation=st.sampled_from([0.1, 0.2, 0.4]),
)
def test_parts_of_parts_are_apportioned_over_all_labels(
    counts: list[int], test: float, validation: float
) -> None:
    split = SplitSettings(Split.STRATIFIED, validation, test, 0)
    labels = [f"{place:03d}" for place, count in enumerate(counts) for _ in range(count)]

    parts, _ = split_rows(digests(len(labels)), labels, split)

    by_label = [Counter(p for p, own in zip(parts, labels, strict=True) if own == label)
                for label in sorted(set(labels))]  # fmt: skip
    for rows, count in zip(by_label, counts, strict=True):
        tests = rows[Part.GATE] + rows[Part.REPORT]
        held_out = rows[Part.SELECTION] + rows[Part.CALIBRATION]
        assert tests == min(int(count * test + 0.5), count - 1)
        assert held_out == min(int(count * validation + 0.5), count - 1 - tests)
        assert abs(rows[Part.REPORT] - tests / 2) <= 0.5
        assert abs(rows[Part.CALIBRATION] - held_out / 4) < 1
    assert parts.count(Part.GATE) - parts.count(Part.REPORT) in {0, 1}
    validations = parts.count(Part.SELECTION) + parts.count(Part.CALIBRATION)
    assert abs(parts.count(Part.CALIBRATION) - validations / 4) <= 0.5


def test_a_thousand_small_classes_have_rows_for_calibration_and_report() -> None:
    labels = [f"{number // 12:04d}" for number in range(12_000)]

    parts = Counter(split_rows(digests(12_000), labels, SETTINGS)[0])

    assert (parts[Part.CALIBRATION], parts[Part.SELECTION]) == (500, 1500)
    assert (parts[Part.REPORT], parts[Part.GATE]) == (1000, 1000)


def test_three_rows_serve_training_selection_and_gate() -> None:
    parts, _ = split_rows(digests(3), ["a"] * 3, SETTINGS)

    assert set(parts) == {Part.TRAIN, Part.SELECTION, Part.GATE}


def test_each_class_is_split_by_itself() -> None:
    labels = ["a"] * 100 + ["b"] * 20

    parts, _ = split_rows(digests(120), labels, SETTINGS)

    assert Counter(parts[:100]) == {
        Part.TRAIN: 60,
        Part.SELECTION: 15,
        Part.CALIBRATION: 5,
        Part.GATE: 10,
        Part.REPORT: 10,
    }
    assert Counter(parts[100:]) == {
        Part.TRAIN: 12,
        Part.SELECTION: 3,
        Part.CALIBRATION: 1,
        Part.GATE: 2,
        Part.REPORT: 2,
    }


def test_a_random_split_counts_over_all_rows() -> None:
    split = SplitSettings(Split.RANDOM, validation_fraction=0.2, test_fraction=0.2, seed=0)

    parts, thresholds = split_rows(digests(100), ["a", "b"] * 50, split)

    assert parts.count(Part.TRAIN) == 60
    assert thresholds["a"] == thresholds["b"]


@settings(max_examples=30, deadline=None)
@given(first=st.integers(3, 80), added=st.integers(1, 80), seed=st.integers(0, 10**6))
def test_added_rows_move_no_other_row(first: int, added: int, seed: int) -> None:
    split = SplitSettings(Split.STRATIFIED, 0.2, 0.2, seed)
    labels = ["ab"[i % 2] for i in range(first + added)] + ["new"] * added
    every = digests(first + 2 * added)
    before, thresholds = split_rows(every[:first], labels[:first], split)

    grown, _ = split_rows(every[: first + added], labels[: first + added], split, thresholds)
    with_new_class, _ = split_rows(every, labels, split, thresholds)

    assert grown[:first] == before
    assert with_new_class[: first + added] == grown


def test_a_class_that_comes_later_is_stable_too() -> None:
    _, thresholds = split_rows(digests(10), ["a"] * 10, SETTINGS)
    labels = ["a"] * 10 + ["new"] * 50

    once, _ = split_rows(digests(60), labels, SETTINGS, thresholds)
    again, _ = split_rows(digests(260), labels + ["new"] * 200, SETTINGS, thresholds)

    assert again[:60] == once
    assert set(again[10:]) == set(Part)


def test_equal_pixels_share_the_part_of_the_smallest_label() -> None:
    names = digests(40)
    labels = ["b"] * 20 + ["a"] * 20
    repeated = names + names

    parts, thresholds = split_rows(repeated, labels + ["c"] * 40, SETTINGS)

    assert parts[:40] == parts[40:]
    place = np.asarray([position(names[0], SETTINGS.seed)])
    (part,) = parts_of(place, np.asarray(thresholds["b"])).tolist()
    assert parts[0] == PARTS[part]


def test_the_seed_decides_the_split() -> None:
    other = SplitSettings(Split.STRATIFIED, 0.2, 0.2, seed=8)

    first, _ = split_rows(digests(200), ["a"] * 200, SETTINGS)
    second, _ = split_rows(digests(200), ["a"] * 200, other)

    assert first != second


def test_one_row_stays_for_training() -> None:
    split = SplitSettings(Split.STRATIFIED, validation_fraction=0.5, test_fraction=0.49, seed=0)

    parts, _ = split_rows(digests(3), ["a"] * 3, split)

    assert parts.count(Part.TRAIN) == 1


@pytest.mark.parametrize(
    ("digest", "seed", "expected"),
    [("00" * 32, 0, 0.4018190530729392), ("ff" * 32, 12, 0.2572015095749335)],
)
def test_positions_never_change_between_versions(digest: str, seed: int, expected: float) -> None:
    assert position(digest, seed) == expected
