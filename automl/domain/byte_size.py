"""Amounts of memory as people write them: `512MB`, `4GB`, `6GiB`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from automl.domain.plain import shown

_PATTERN = re.compile(r"([0-9]+)(B|[KMG]B|[KMG]iB)")
_UNIT_BYTES = {
    "GiB": 2**30, "GB": 10**9, "MiB": 2**20, "MB": 10**6, "KiB": 2**10, "KB": 10**3, "B": 1,
}  # fmt: skip
_DIGITS = 18  # of a number; more would cost time to read


def parse_byte_size(text: object) -> int:
    """Return the bytes that `text` writes, such as `512MB`, `4GB` or `6GiB`.

    Raises:
        ValueError: `text` is not of that form, or the amount is zero.
    """
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None or not match[1].strip("0"):
        raise ValueError(
            f"{shown(text)} is not an amount of memory; write it like 512MB, 4GB or 6GiB"
        )
    if len(match[1]) > _DIGITS:
        raise ValueError(f"{shown(text)} is more memory than there is")
    return int(match[1]) * _UNIT_BYTES[match[2]]


def format_byte_size(size_bytes: int) -> str:
    """Return text with the largest unit that needs no fraction; `parse_byte_size` reads it back."""
    units = _UNIT_BYTES.items()
    unit, unit_bytes = next(one for one in units if size_bytes % one[1] == 0)
    return f"{size_bytes // unit_bytes}{unit}"


def _parse(value: Any) -> int:
    return parse_byte_size(value)


ByteSize = Annotated[
    int,
    BeforeValidator(_parse),
    PlainSerializer(format_byte_size),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^[0-9]+(B|[KMG]B|[KMG]iB)$",
            "examples": ["512MB", "4GB", "6GiB"],
        }
    ),
]
