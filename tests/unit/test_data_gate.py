"""The data gate: what stops a run, and what does not, on scikit-learn's digits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from automl.data.gate import MOST_GROWTH, compare
from automl.data.profile import Bins, Distribution, Profile, Scale
from automl.domain.data_change import ChangeKind, DataChange
from automl.tracks.image.statistics import STATISTICS, row_statistics
from tests.digits import digits

SIZES = Bins(scale=Scale.LOG, size=16.0)
SAMPLES = 200
MOST_STOPS = 5  # of them


@dataclass(frozen=True)
class Rows:
    """Rows of a source: what a profile is made of."""

    digests: np.ndarray
    labels: np.ndarray
    statistics: np.ndarray
    left_out: int = 0

    def at(self, places: np.ndarray) -> Rows:
        return Rows(self.digests[places], self.labels[places], self.statistics[places])

    def profile(self) -> Profile:
        spread = {
            name: Distribution.of(self.statistics[:, k], bins)
            for k, (name, bins) in enumerate(STATISTICS.items())
        }
        listed = len(self.digests) + self.left_out
        return Profile.of(listed, self.digests.tolist(), self.labels.tolist(), spread)


@cache
def source() -> Rows:
    x, y = digits()
    return Rows(
        np.arange(len(x)).astype(str),  # no two are alike
        y.astype(str),
        np.array([measured(image) for image in x]),
    )


def measured(image: np.ndarray) -> list[float]:
    return list(row_statistics(np.repeat(image[..., None], 3, axis=2)).values())


def changes(after: Rows) -> list[DataChange]:
    return compare(source().profile(), after.profile())


def suspicions(after: Rows) -> set[ChangeKind]:
    return {change.kind for change in changes(after) if change.is_suspicious}


def some(share: float) -> np.ndarray:
    """Return the places of a share of the rows, drawn without replacement."""
    rows = len(source().digests)
    return np.random.default_rng(0).permutation(rows)[: round(share * rows)]


def with_labels(share: float, label: str) -> Rows:
    labels = source().labels.copy()
    labels[some(share)] = label
    return replace(source(), labels=labels)


def with_images(share: float, image: np.ndarray) -> Rows:
    """Return the rows, a share of whose images are this one with little noise."""
    rows, statistics, digests = source(), source().statistics.copy(), source().digests.copy()
    statistics[some(share)] = measured(image)
    digests[some(share)] = [f"noise {place}" for place in some(share)]
    return replace(rows, statistics=statistics, digests=digests)


@pytest.mark.parametrize("growth", [1.0, 1.1])
def test_samples_of_an_unchanged_source_pass(growth: float) -> None:
    rng, rows = np.random.default_rng(0), len(source().digests)
    before = source().profile()

    stops = [
        any(change.is_suspicious for change in compare(before, sample.profile()))
        for sample in (
            source().at(rng.integers(0, rows, round(growth * rows))) for _ in range(SAMPLES)
        )
    ]

    assert sum(stops) <= MOST_STOPS


def test_halves_of_a_source_are_told_apart_by_nothing() -> None:
    rng, rows = np.random.default_rng(0), len(source().digests)

    stops = 0
    for _ in range(SAMPLES // 2):
        order = rng.permutation(rows)
        one, other = (source().at(half).profile() for half in np.array_split(order, 2))
        stops += any(change.is_suspicious for change in compare(one, other))

    assert stops <= MOST_STOPS


@pytest.mark.parametrize(
    ("after", "kinds"),
    [
        (lambda: source().at(np.flatnonzero(source().labels != "3")), {"vanished_classes"}),
        (lambda: with_labels(0.01, "0 "), {"new_classes"}),
        (lambda: with_labels(0.2, "3"), {"class_shares"}),
        (lambda: source().at(some(0.5)), {"rows"}),
        (lambda: source().at(np.tile(some(1.0), 2)), {"duplicates"}),
        (lambda: replace(source(), left_out=90), {"quarantined"}),
        (lambda: with_images(1.0, np.zeros((8, 8), np.uint8)), {"statistic"}),
        (lambda: with_images(0.2, np.zeros((8, 8), np.uint8)), {"statistic"}),
        (lambda: with_images(0.2, np.full((16, 16), 80, np.uint8)), {"statistic"}),
    ],
    ids=[
        "a class gone", "a new class", "a label shift", "half of the rows", "listed twice",
        "unreadable", "all black", "some black", "some larger",
    ],
)  # fmt: skip
def test_a_broken_source_is_suspicious_for_one_reason(after: object, kinds: set[str]) -> None:
    assert callable(after)

    assert suspicions(after()) == kinds


@pytest.mark.parametrize("share", [0.71, 0.9, 1.0])
def test_a_source_that_shrinks_a_little_is_not(share: float) -> None:
    assert suspicions(source().at(some(share))) == set()


@pytest.mark.parametrize(("times", "stops"), [(2, False), (4, True)])
def test_growth_is_normal_up_to_a_point(times: int, *, stops: bool) -> None:
    rows = source().at(np.tile(some(1.0), times))
    rows = replace(rows, digests=np.arange(len(rows.digests)).astype(str))

    assert (times > MOST_GROWTH) == stops
    assert suspicions(rows) == ({ChangeKind.ROWS} if stops else set())


def test_a_trifle_in_many_rows_is_no_reason() -> None:
    rng = np.random.default_rng(0)
    before, after = (
        Profile.of(10**6, (), (), {}).model_copy(
            update={
                "rows": 10**6,
                "rows_per_label": {"a": a, "b": 10**6 - a},
                "statistics": {"x": Distribution.of(rng.normal(mean, 1, 10**5), SIZES)},
            }
        )
        for a, mean in ((500_000, 10.0), (510_000, 10.05))
    )

    assert [c.kind for c in compare(before, after)] == [ChangeKind.CLASS_ROWS]


def test_a_class_that_loses_most_of_its_rows_is_told_among_many() -> None:
    before = {f"c{k:03}": 100 for k in range(500)}
    after = before | {"c007": 20}

    found = compare(*(Profile(rows_listed=1, rows=1, rows_per_label=r) for r in (before, after)))

    (change,) = [change for change in found if change.is_suspicious]
    assert change.kind is ChangeKind.CLASS_SHARES
    assert "'c007'" in change.message


def columns(**values: ArrayLike) -> Profile:
    spread = {name: Distribution.of(each, SIZES) for name, each in values.items()}
    rows = np.size(next(iter(values.values())))
    return Profile(rows_listed=rows, rows=rows, statistics=spread)


def test_a_table_whose_column_has_another_unit_is_suspicious() -> None:
    rng = np.random.default_rng(0)
    heights, years = rng.normal(1.7, 0.1, 500), rng.integers(1990, 2026, 500)

    before = columns(height=heights, year=years)

    assert compare(before, columns(height=heights, year=years)) == []
    (change,) = compare(before, columns(height=100 * heights, year=years))
    assert (change.kind, change.name, change.is_suspicious) == (
        ChangeKind.STATISTIC, "height", True,
    )  # fmt: skip
    assert "mean 169.7, before 1.697" in change.message
    (change,) = compare(before, columns(height=heights, year=years + 8))  # within a bin or two
    assert (change.name, change.is_suspicious) == ("year", True)


def test_a_column_that_loses_its_values_is_suspicious() -> None:
    values = np.linspace(1, 2, 500)
    gappy = np.where(np.arange(500) % 5 == 0, np.nan, values)

    (change,) = compare(columns(x=values), columns(x=gappy))

    assert change.kind is ChangeKind.MISSING_VALUES
    assert change.message == "20.0% of the rows have no x, before 0.0%"
    assert compare(columns(x=gappy), columns(x=values)) == []


def test_a_statistic_that_was_measured_otherwise_is_not_compared() -> None:
    before, after = columns(x=[1.0] * 9, y=[1.0] * 9), columns(x=[1.0] * 9, z=[1.0] * 9)
    other = Distribution.of([5.0] * 9, Bins(scale=Scale.LINEAR, size=1.0))
    after = after.model_copy(update={"statistics": after.statistics | {"x": other}})

    found = compare(before, after)

    assert [(c.kind, c.name, c.is_suspicious) for c in found] == [
        (ChangeKind.NOT_COMPARED, name, False) for name in "xyz"
    ]


def test_changes_have_the_numbers_before_and_now() -> None:
    half, gone = source().at(some(0.5)), source().at(np.flatnonzero(source().labels != "3"))

    rows = next(c for c in changes(half) if c.kind is ChangeKind.ROWS)
    classes = next(c for c in changes(gone) if c.is_suspicious)

    assert rows.message == "898 rows, before 1,797 (50% of them)"
    assert (rows.before, rows.after) == (1797, 898)
    assert classes.message == "1 class is gone, of 10: '3' (183 rows)"
    assert (classes.before, classes.after) == (10, 9)


def test_the_suspicious_are_told_first_and_long_lists_are_cut() -> None:
    before = Profile(rows_listed=9, rows=9, rows_per_label={str(k): k + 1 for k in range(40)})
    after = Profile(rows_listed=9, rows=8, rows_per_label={"40": 5, "0": 3})

    found = compare(before, after)

    flags = [change.is_suspicious for change in found]
    assert flags == sorted(flags, reverse=True)
    assert found[0].message.endswith(", and 29 more")


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**7))
values = st.lists(st.floats(), min_size=0, max_size=20)


@settings(max_examples=30)
@given(data=st.data())
def test_any_two_profiles_can_be_compared(data: st.DataObject) -> None:
    one, other = (
        Profile(
            rows_listed=data.draw(st.integers(0, 99)) + (rows := data.draw(st.integers(0, 99))),
            rows=rows,
            rows_per_label=data.draw(counts),
            duplicates=data.draw(st.integers(0, rows)),
            statistics={"x": Distribution.of(data.draw(values), SIZES)},
        )
        for _ in range(2)
    )

    assert compare(one, one) == []
    for change in compare(one, other):
        assert DataChange.model_validate_json(change.model_dump_json()) == change
