"""A check of cron expressions, so that a wrong schedule is refused together with other problems."""

from __future__ import annotations

import re

from automl.domain.plain import shown

_PRESETS = frozenset({"@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly"})
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...], int], ...] = (
    ("minute", 0, 59, (), 0),
    ("hour", 0, 23, (), 0),
    ("day of month", 1, 31, (), 0),
    ("month", 1, 12, _MONTHS, 1),
    ("day of week", 0, 7, _DAYS, 0),
)
_LONGEST = 100  # characters; Airflow keeps a description of the expression, which is longer
_DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_TERM = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([0-9]+))?")


def check_cron(expression: str) -> str:
    """Return `expression` if it is a cron preset or has five valid fields that some day meets.

    Raises:
        ValueError: it is not; the message names the field.
    """
    if expression in _PRESETS:
        return expression
    if len(expression) > _LONGEST:
        raise ValueError(f"the schedule is longer than {_LONGEST} characters: {shown(expression)}")
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{expression!r} is not a cron expression: it has {len(fields)} fields instead of 5"
        )
    for text, (name, low, high, names, offset) in zip(fields, _FIELDS, strict=True):
        for term in text.split(","):
            if not _is_valid_term(term, (low, high), names, offset):
                raise ValueError(f"{expression!r} is not a cron expression: {name} is {text!r}")
    if fields[4] == "*" and not _has_a_day(fields[2], fields[3]):
        raise ValueError(f"{expression!r} means a day that never comes")
    return expression


def _has_a_day(days: str, months: str) -> bool:
    """Return whether one of the months has one of the days."""
    longest = max(_DAYS_OF_MONTH[month - 1] for month in _values(months, *_FIELDS[3][1:]))
    return min(_values(days, *_FIELDS[2][1:])) <= longest


def _values(text: str, low: int, high: int, names: tuple[str, ...], offset: int) -> set[int]:
    """Return what a valid field stands for."""
    found: set[int] = set()
    for term in text.split(","):
        match = _TERM.fullmatch(term)
        assert match is not None
        first, last = low, high
        if match[1] is not None:
            first = _number(match[1], names, offset)
            last = _number(match[2], names, offset) if match[2] else first
            if match[3] is not None and match[2] is None:
                last = high
        found |= set(range(first, last + 1, int(match[3] or 1)))
    return found


def _number(text: str, names: tuple[str, ...], offset: int) -> int:
    return names.index(text.lower()) + offset if text.lower() in names else int(text)


def _is_valid_term(term: str, bounds: tuple[int, int], names: tuple[str, ...], offset: int) -> bool:
    match = _TERM.fullmatch(term)
    if match is None or (match[3] is not None and int(match[3]) == 0):
        return False
    values = []
    for text in (match[1], match[2]):
        if text is None:
            continue
        if text.lower() in names:
            values.append(names.index(text.lower()) + offset)
        elif text.isascii() and text.isdigit():
            values.append(int(text))
        else:
            return False
    low, high = bounds
    return all(low <= value <= high for value in values) and values == sorted(values)
