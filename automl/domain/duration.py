"""Durations as people write them: `90s`, `15m`, `2h`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from automl.domain.plain import shown

_PATTERN = re.compile(r"([0-9]+)([smh])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}
_MOST_DIGITS = 10
LONGEST = timedelta(days=36_525)  # a century: below what clocks and threads can count


def parse_duration(text: object) -> timedelta:
    """Return the duration that `text` writes, such as `90s`, `15m` or `2h`.

    Raises:
        ValueError: `text` is not of that form, or the duration is zero or longer than a century.
    """
    if isinstance(text, timedelta):
        duration = text
    else:
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        if match is None or not match[1].strip("0"):
            raise ValueError(f"{shown(text)} is not a duration; write it like 90s, 15m or 2h")
        digits = match[1].lstrip("0")
        if len(digits) > _MOST_DIGITS:
            raise ValueError(f"{shown(text)} is longer than {format_duration(LONGEST)}")
        duration = timedelta(seconds=int(digits) * _UNIT_S[match[2]])
    if duration > LONGEST:
        raise ValueError(f"{shown(text)} is longer than {format_duration(LONGEST)}")
    return duration


def format_duration(duration: timedelta) -> str:
    """Return the shortest text that `parse_duration` reads back as `duration`."""
    seconds = round(duration.total_seconds())
    for unit in ("h", "m"):
        if seconds % _UNIT_S[unit] == 0:
            return f"{seconds // _UNIT_S[unit]}{unit}"
    return f"{seconds}s"


def _parse(value: Any) -> timedelta:
    return parse_duration(value)


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse),
    PlainSerializer(format_duration),
    WithJsonSchema(
        {"type": "string", "pattern": "^[0-9]+[smh]$", "examples": ["90s", "15m", "2h"]}
    ),
]
