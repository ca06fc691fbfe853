"""Tests of `automl.domain.cron`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.cron import check_cron


@pytest.mark.parametrize(
    "expression",
    [
        "0 1 * * *",
        "*/15 * * * *",
        "0 0-6/2 1,15 * *",
        "30 4 * jan-mar mon-fri",
        "0 0 * * SUN",
        "0 0 * DEC 7",
        "59 23 31 12 0",
        "@daily",
        "@hourly",
    ],
)
def test_a_cron_expression_is_returned_unchanged(expression: str) -> None:
    assert check_cron(expression) == expression


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("60 1 * * *", "minute"),
        ("-1 1 * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 1 0 * *", "day of month"),
        ("0 1 32 * *", "day of month"),
        ("0 1 * 13 *", "month"),
        ("0 1 * mon *", "month"),
        ("0 1 * * 8", "day of week"),
        ("0 1 * * jan", "day of week"),
        ("*/0 1 * * *", "minute"),
        ("5-1 1 * * *", "minute"),
        ("1,,2 1 * * *", "minute"),
        ("0 1 * fri-jan *", "month"),
        ("² 1 * * *", "minute"),
    ],
)
def test_a_wrong_field_is_named(expression: str, field: str) -> None:
    with pytest.raises(ValueError, match=f": {field} is ") as caught:
        check_cron(expression)

    assert repr(expression) in str(caught.value)


@pytest.mark.parametrize(("expression", "count"), [("", 0), ("0 1 * *", 4), ("0 0 1 * * *", 6)])
def test_a_wrong_number_of_fields_is_told(expression: str, count: int) -> None:
    with pytest.raises(ValueError, match=f"it has {count} fields instead of 5"):
        check_cron(expression)


@pytest.mark.parametrize("preset", ["@nightly", "@", "daily", "@Daily"])
def test_an_unknown_preset_is_refused(preset: str) -> None:
    with pytest.raises(ValueError, match="is not a cron expression"):
        check_cron(preset)


@given(minute=st.integers(0, 59), hour=st.integers(0, 23), day=st.integers(1, 31))
def test_every_time_of_a_month_is_a_schedule(minute: int, hour: int, day: int) -> None:
    expression = f"{minute} {hour} {day} * *"

    assert check_cron(expression) == expression


@given(text=st.text(max_size=30).filter(lambda text: len(text.split()) != 5 and "@" not in text))
def test_text_without_five_fields_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fields instead of 5"):
        check_cron(text)


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 feb,4 *", "0 0 31 4-6/5,9,11 *"])
def test_a_day_that_never_comes_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="means a day that never comes"):
        check_cron(expression)


@pytest.mark.parametrize(
    "expression", ["0 0 29 2 *", "0 0 31 4-6 *", "0 0 30 2 mon", "0 0 */2 2 *", "0 0 1,30 feb *"]
)
def test_a_day_that_comes_is_a_schedule(expression: str) -> None:
    assert check_cron(expression) == expression


def test_a_very_long_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 100 characters"):
        check_cron(",".join(str(minute) for minute in range(60)) + " * * * *")
