"""Timestamps of S3, which a listing has in every line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.utils import parse_timestamp
from hypothesis import given
from hypothesis import strategies as st

from automl.storage.objects import ObjectEntry
from automl.storage.s3.objects import _moment, _packed, _unpacked

TIMES = st.datetimes(datetime(1970, 1, 2), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is beside


@pytest.mark.parametrize(
    "text",
    ["2026-11-30T01:02:03.456Z", "2026-11-30T01:02:03Z", "20261130T010203Z",
     "Mon, 30 Nov 2026 01:02:03 GMT", "1764464523", 1764464523, 1764464523.5],
)  # fmt: skip
def test_a_timestamp_is_what_botocore_reads(text: Any) -> None:
    assert _moment(text) == parse_timestamp(text)


def test_what_is_no_timestamp_is_refused() -> None:
    with pytest.raises(ValueError, match="never"):
        _moment("never")


@given(
    keys=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
        unique=True,
    ),
    size_bytes=st.integers(0, 2**40),
    modified=TIMES,
    etag=st.text('0123456789abcdef-"', max_size=40),
)
def test_entries_that_wait_keep_their_order_and_all_they_tell(
    keys: list[str], size_bytes: int, modified: datetime, etag: str
) -> None:
    entries = [ObjectEntry(key, size_bytes, modified, etag) for key in keys]

    found = [_unpacked(packed) for packed in sorted(map(_packed, entries))]

    assert found == sorted(entries, key=lambda entry: entry.key)
