"""Exhibits of a data report: what a track shows of a snapshot besides what every track has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class RowName(NamedTuple):
    """Name of a row of a snapshot.

    Attributes:
        path: how the source calls it.
        part: of the split that it is in; "" if that is not known.
    """

    path: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rows that a report would show.

    Attributes:
        labels: classes of which a few rows are shown.
        per_label: how many of each.
        rows: further ones.
        sealed: parts of which nothing may be shown.
    """

    labels: Sequence[str] = ()
    per_label: int = 0
    rows: Sequence[RowName] = ()
    sealed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Exhibit:
    """Row as a report shows it.

    Attributes:
        name: of the row.
        uri: `data:` URI of a picture of it that a browser can show, of a few kilobytes.
    """

    name: RowName
    uri: str


@dataclass(frozen=True, slots=True)
class Exhibits:
    """Exhibits of a snapshot.

    Attributes:
        facts: sentences about the snapshot, by name; programs read them, too.
        rows_per_part: rows of each class by part; empty where labels are no classes.
        notes: what people should know about the pictures, a sentence each.
        samples: rows by the label that was asked for; one without rows that may be shown is left
            out.
        rows: further ones by the name that was asked for; what may not be shown, or is not certain,
            is left out.
    """

    facts: Mapping[str, str] = field(default_factory=dict)
    rows_per_part: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    samples: Mapping[str, Sequence[Exhibit]] = field(default_factory=dict)
    rows: Mapping[RowName, Exhibit] = field(default_factory=dict)
