from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.data.times import read_times
from automl.errors import DataError


def times(*texts: str) -> list[float]:
    found: list[float] = read_times(
        texts, [f"row {n}" for n in range(len(texts))], "data.time"
    ).tolist()
    return found


@pytest.mark.parametrize(
    "texts",
    [
        ("-3", "0", "1.5", "2e3", "20260531"),
        ("0001-01-01", "1969-12-31", "2026-02-28", "9999-12-31"),
        ("2026-05-31 18:00", "2026-05-31T18:00:00.000001", "2026-06-01T00:00"),
        ("2026-05-31T18:00+02:00", "2026-05-31T17:00:00Z", "2026-05-31T18:00+00:00"),
    ],
)
def test_times_are_in_their_order(texts: tuple[str, ...]) -> None:
    found = times(*texts)

    assert found == sorted(set(found))


@given(moment=st.datetimes(timezones=st.just(UTC)), minutes=st.integers(-800, 800))
def test_a_time_is_the_same_in_every_zone(moment: datetime, minutes: int) -> None:
    try:
        other = moment.astimezone(timezone(timedelta(minutes=minutes)))
    except OverflowError:  # before the year 1, or after 9999
        return

    assert times(moment.isoformat()) == times(other.isoformat())


@pytest.mark.parametrize(
    ("texts", "told", "rows"),
    [
        (("1", "2", "2026-05-31"), "2 numbers, 1 dates", ["row 2"]),
        (("2026-05-31", "2026-05-31T18:00"), "1 dates, 1 times of day without a zone", ["row 1"]),
        (("2026-05-31T18:00", "2026-05-31T18:00Z", "2026-05-31T19:00Z"),
         "2 times of day with a zone, 1 times of day without a zone", ["row 0"]),
        (("1", "soon", "nan", "1e999"), "1 numbers and 3 texts that are no times",
         ["row 1", "row 2", "row 3"]),
        (("31.05.2026", "", "1_000"), "3 texts that are no times", ["row 0", "row 1", "row 2"]),
    ],
)  # fmt: skip
def test_what_is_no_time_or_of_another_kind_is_listed(
    texts: tuple[str, ...], told: str, rows: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        times(*texts)

    assert caught.value.message == f"The column that data.time names has {told}."
    assert [problem.path for problem in caught.value.problems] == rows


def test_a_long_text_is_told_in_short() -> None:
    with pytest.raises(DataError) as caught:
        times("x" * 5000)

    assert len(caught.value.problems[0].message) < 120
