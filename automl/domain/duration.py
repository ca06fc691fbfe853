"""Durations as people write them: `90s`, `15m`, `2h`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_PATTERN = re.compile(r"([0-9]+)([smh])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: object) -> timedelta:
    """Return the duration that `text` writes, such as `90s`, `15m` or `2h`.

    Raises:
        ValueError: `text` is not of that form, or the duration is zero.
    """
    if isinstance(text, timedelta):
        return text
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 15m or 2h")
    try:
        return timedelta(seconds=int(match[1]) * _UNIT_S[match[2]])
    except OverflowError as error:
        raise ValueError(f"{text!r} is too long") from error


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
