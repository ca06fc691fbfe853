"""Table of a drill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.drill.site import Flight
from tests.drill.strikes import Strike
from tests.drill.verdict import Loss

_HEAD = (
    "| no | after | hit | what happened | observations expected, counted | training lost "
    "| over after | verdict |"
)


@dataclass(frozen=True, slots=True)
class Row:
    """Row of the table: one injection, and what came of it.

    Attributes:
        strike: the injection.
        expected: trials that were being trained, and whose run was not broken off.
        counted: those of them that have one outcome.
        lost_s: seconds of training that were done again.
    """

    strike: Strike
    expected: int
    counted: int
    lost_s: float


def rows(
    strikes: Sequence[Strike], owed: set[Flight], ended: set[Flight], lost: Sequence[Loss]
) -> list[Row]:
    """Return what came of each injection; a loss is put down to the last one before it.

    Args:
        strikes: the injections, oldest first.
        owed: trials, with attempt 0, that must have an outcome.
        ended: those of them that have one.
        lost: training that was done again.
    """
    found = []
    for strike, until_s in zip(
        strikes, [*(one.at_s for one in strikes[1:]), float("inf")], strict=True
    ):
        flown = {Flight(flight.study, flight.trial, 0) for flight in strike.flights}
        seconds = sum(one.seconds for one in lost if strike.at_s <= one.at_s < until_s)
        found.append(Row(strike, len(flown & owed), len(flown & ended), seconds))
    return found


def text(rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    began_s = rows[0].strike.at_s if rows else 0.0
    lines = [_HEAD, "| --- |" + " --- |" * 7]
    for row in rows:
        strike = row.strike
        cells = (
            str(strike.number),
            f"{strike.at_s - began_s:.0f} s",
            f"{strike.name}: {strike.hit}",
            strike.happened,
            f"{row.expected}, {row.counted}",
            f"{row.lost_s:.1f} s",
            f"{strike.seconds:.0f} s",
            strike.fault or "passed",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
