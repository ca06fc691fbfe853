"""Tests of `automl.domain.byte_size`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.byte_size import format_byte_size, parse_byte_size
from automl.steps.study_file import study_spec

UNIT_BYTES = {
    "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3,
}  # fmt: skip


@given(number=st.integers(1, 10**7), unit=st.sampled_from(list(UNIT_BYTES)))
def test_an_amount_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert parse_byte_size(f"{number}{unit}") == number * UNIT_BYTES[unit]


@given(size_bytes=st.integers(1, 10**15))
def test_a_formatted_amount_is_read_back(size_bytes: int) -> None:
    assert parse_byte_size(format_byte_size(size_bytes)) == size_bytes


@pytest.mark.parametrize("text", ["1B", "3KiB", "512MB", "4GB", "6GiB", "1500MB"])
def test_an_amount_is_written_as_people_write_it(text: str) -> None:
    assert format_byte_size(parse_byte_size(text)) == text


def test_a_study_file_limits_memory_and_its_record_is_read_back() -> None:
    document = {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": "rows.npz"},
        "search": {"limits": {"device_memory": "1500MB"}},
    }

    spec = study_spec(document)
    recorded = spec.model_dump(mode="json", by_alias=True)

    assert spec.search.limits.device_memory == 1_500_000_000
    assert recorded["search"]["limits"]["device_memory"] == "1500MB"
    assert study_spec(recorded) == spec


@pytest.mark.parametrize(
    "value",
    [
        "", "4", "GB", "0GB", "000MB", "-4GB", "1.5GB", "4 GB", "4GB\n", "4gb", "4G", "4TB", "٣GB",
        4, 4.0, None, True, ["4GB"],
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_form(value: object) -> None:
    with pytest.raises(ValueError, match="write it like 512MB, 4GB or 6GiB"):
        parse_byte_size(value)


def test_more_than_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match="is more memory than there is"):
        parse_byte_size("9" * 5000 + "GB")
