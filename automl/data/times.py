"""Times as columns of tables have them: ISO 8601, or numbers of whatever unit."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime

from automl.errors import DataError, Problem

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_UNKNOWN = ""
_FORMS = "a number, an ISO date (2026-05-31) or an ISO date with a time of day (2026-05-31T18:00)"


def read_times(texts: Sequence[str], names: Sequence[str], key: str) -> list[float]:
    """Return times that compare as numbers, all of one kind.

    Numbers stay what they are; dates and times of day become seconds since 1970. A date is its
    midnight. What names no zone is taken as UTC.

    Args:
        texts: the times.
        names: of their rows.
        key: of the study file, which names the column.

    Raises:
        DataError: a text is no time, or they are of several kinds; the problems list rows.
    """
    kinds = [_kind_and_time(text) for text in texts]
    rows: dict[str, list[int]] = defaultdict(list)
    for index, (kind, _) in enumerate(kinds):
        rows[kind].append(index)
    known = sorted((kind for kind in rows if kind), key=lambda kind: (-len(rows[kind]), kind))
    if len(known) > 1 or rows[_UNKNOWN]:
        odd = [*rows[_UNKNOWN], *(index for kind in known[1:] for index in rows[kind])]
        told = ", ".join(f"{len(rows[kind]):,} {kind}" for kind in known)
        unknown = f"{len(rows[_UNKNOWN]):,} texts that are no times" if rows[_UNKNOWN] else ""
        raise DataError(
            f"The column that {key} names has {' and '.join(filter(None, [told, unknown]))}.",
            f"write every time in the same form: {_FORMS}",
            [Problem(names[index], _problem(texts[index], kinds[index][0])) for index in odd],
        )
    return [time for _, time in kinds]


def _problem(text: str, kind: str) -> str:
    return f"{text[:80]!r} is one of the {kind}" if kind else f"{text[:80]!r} is no time"


def _kind_and_time(text: str) -> tuple[str, float]:
    """Return what kind of time a text is, "" for none, and the time."""
    if _NUMBER.fullmatch(text):
        number = float(text)
        return ("numbers", number) if math.isfinite(number) else (_UNKNOWN, math.nan)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return _kind_and_moment(text)
    return "dates", _seconds(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _kind_and_moment(text: str) -> tuple[str, float]:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _UNKNOWN, math.nan
    if moment.tzinfo is None:
        return "times of day without a zone", _seconds(moment.replace(tzinfo=UTC))
    return "times of day with a zone", _seconds(moment)


def _seconds(moment: datetime) -> float:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
