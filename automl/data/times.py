"""Times as columns of tables have them: ISO 8601, or numbers of whatever unit."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray

from automl.errors import DataError, Problem

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_UNKNOWN = ""
_FORMS = "a number, an ISO date (2026-05-31) or an ISO date with a time of day (2026-05-31T18:00)"


def read_times(texts: Sequence[str], names: Sequence[str], key: str) -> NDArray[np.float64]:
    """Return times that compare as numbers, all of one kind, float64 `[n]`.

    Numbers stay what they are; dates and times of day become seconds since 1970. A date is its
    midnight. What names no zone is taken as UTC.

    Args:
        texts: the times.
        names: of their rows.
        key: of the study file, which names the column.

    Raises:
        DataError: a text is no time, or they are of several kinds; the problems list rows.
    """
    times, of_kind = array("d"), dict[str, int]()
    for text in texts:
        kind, time = _kind_and_time(text)
        times.append(time)
        of_kind[kind] = of_kind.get(kind, 0) + 1
    unknown = of_kind.pop(_UNKNOWN, 0)
    known = sorted(of_kind, key=lambda kind: (-of_kind[kind], kind))
    if len(known) > 1 or unknown:
        told = [", ".join(f"{of_kind[kind]:,} {kind}" for kind in known)]
        told += [f"{unknown:,} texts that are no times"] * bool(unknown)
        raise DataError(
            f"The column that {key} names has {' and '.join(filter(None, told))}.",
            f"write every time in the same form: {_FORMS}",
            [
                Problem(name, _problem(text, kind))
                for wanted in (_UNKNOWN, *known[1:])
                for name, text in zip(names, texts, strict=True)
                if (kind := _kind_and_time(text)[0]) == wanted
            ],
        )
    return np.frombuffer(times, np.float64)


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
