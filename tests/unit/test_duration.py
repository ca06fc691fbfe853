"""Tests of `automl.domain.duration`."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.duration import LONGEST, format_duration, parse_duration

UNIT_S = {"s": 1, "m": 60, "h": 3600}


@given(number=st.integers(1, 8784), unit=st.sampled_from("smh"))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == timedelta(seconds=number * UNIT_S[unit])


@given(seconds=st.integers(1, 36_525 * 86400))
def test_a_formatted_duration_is_read_back(seconds: int) -> None:
    duration = timedelta(seconds=seconds)

    assert parse_duration(format_duration(duration)) == duration


@given(number=st.integers(1, 8784), unit=st.sampled_from("smh"))
def test_no_other_text_of_the_same_duration_is_shorter(number: int, unit: str) -> None:
    text = f"{number}{unit}"

    assert len(format_duration(parse_duration(text))) <= len(text)


@given(duration=st.timedeltas(timedelta(seconds=1), LONGEST))
def test_a_timedelta_is_taken_as_it_is(duration: timedelta) -> None:
    assert parse_duration(duration) is duration


@given(text=st.text().filter(lambda text: not re.fullmatch("[0-9]+[smh]", text)))
def test_any_other_text_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write it like"):
        parse_duration(text)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "90",
        "s",
        "0s",
        "0h",
        "-5m",
        "+5m",
        "1.5h",
        "1h30m",
        " 1h",
        "1h ",
        "1h\n",
        "1H",
        "1d",
        "٣s",
    ],
)
def test_other_texts_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="write it like 90s, 15m or 2h"):
        parse_duration(value)


@pytest.mark.parametrize("value", [90, 1.5, None, True, ["1h"], {"h": 1}])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="write it like 90s, 15m or 2h"):
        parse_duration(value)


@pytest.mark.parametrize("text", ["876601h", "9" * 40 + "h", "9" * 5000 + "s", "3155760001s"])
def test_more_than_a_century_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than 876600h"):
        parse_duration(text)
