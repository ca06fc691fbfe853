"""Types of values that many keys of a specification have, and their checks."""

from __future__ import annotations

import zoneinfo
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from automl.domain.plain import shown

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
_SPACE, _DELETE = 0x20, 0x7F
_MOST = 2**53 - 1  # is exact in any JSON


def _without_controls(text: str) -> str:
    if any(ord(char) < _SPACE or ord(char) == _DELETE for char in text):
        raise ValueError(f"{shown(text)} holds a control character")
    return text


def _countable(number: int) -> int:
    if number > _MOST:
        raise ValueError(f"{shown(number)} is more than can be counted")
    return number


Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1), AfterValidator(_countable)]
CountFromZero = Annotated[int, Field(ge=0), AfterValidator(_countable)]
NonEmpty = Annotated[
    str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_without_controls)
]


def check_timezone(name: str) -> str:
    """Return the name of a time zone.

    Raises:
        ValueError: there is no such one.
    """
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"{shown(name)} is not a time zone; write it like Europe/Berlin"
        ) from error
    return name
