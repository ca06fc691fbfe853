"""A check of cron expressions, so that a wrong schedule is refused together with other problems."""

from __future__ import annotations

import re

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
_TERM = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([0-9]+))?")


def check_cron(expression: str) -> str:
    """Return `expression` if it is a cron preset or has five valid fields.

    Raises:
        ValueError: it is not; the message names the field.
    """
    if expression in _PRESETS:
        return expression
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{expression!r} is not a cron expression: it has {len(fields)} fields instead of 5"
        )
    for text, (name, low, high, names, offset) in zip(fields, _FIELDS, strict=True):
        for term in text.split(","):
            if not _is_valid_term(term, (low, high), names, offset):
                raise ValueError(f"{expression!r} is not a cron expression: {name} is {text!r}")
    return expression


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
