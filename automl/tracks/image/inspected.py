"""Findings about the rows of listings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Inspected:
    """Findings about a row of a listing.

    Attributes:
        digest: of its pixels, hexadecimal.
        content: index of its content in the ledger.
        problem: why it cannot be used; "" if it can.
    """

    digest: str
    content: int
    problem: str = ""
