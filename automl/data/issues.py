"""Rows of a snapshot that a person should look at, and why, as a table that can be corrected with.

Likely label errors come first, then equal and similar pictures, then odd ones.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from automl.data.label_errors import ConfusedPair, find_label_errors, together
from automl.data.near_duplicates import NearDuplicates, exact_duplicates
from automl.data.odd_pictures import Oddity, odd_pictures
from automl.data.snapshot import ExcludedRow

UNKNOWN = -1  # in the place of a label: that of a sealed row


class IssueKind(StrEnum):
    """Kind of an issue, in the order in which they are told."""

    LABEL_ERROR = "label_error"
    DUPLICATE_LABELS = "duplicate_with_other_label"
    NEAR_DUPLICATE_LABELS = "near_duplicate_with_other_label"
    NEAR_DUPLICATE_PARTS = "near_duplicate_in_other_part"
    NEAR_DUPLICATE = "near_duplicate"
    DARK = "dark"
    BRIGHT = "bright"
    BLURRED = "blurred"
    TINY = "tiny"
    OUTLIER = "outlier"


_OF_ODDITY = {oddity: IssueKind(oddity.value) for oddity in Oddity}


@dataclass(frozen=True, slots=True)
class Issue:
    """One row that a person should look at.

    Attributes:
        path: how the source calls it.
        part: of the split that it is in.
        label: that it has; "" where it is sealed.
        suggested: the label that it may have to have instead, or "".
        kind: what may be wrong.
        score: of likely errors and odd pictures the larger, the worse; of duplicates with other
            labels how many rows are equal; of near-duplicates how much they differ, 0 to 255.
        related: another row that it is about, or "".
        note: for people.
    """

    path: str
    part: str
    label: str
    suggested: str
    kind: IssueKind
    score: float
    related: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class AuditedRows:
    """Rows of a snapshot as an audit sees them, n in all.

    Attributes:
        classes: labels by index.
        paths: how the source calls the rows.
        parts: of the split [n].
        labels: indices of classes, `UNKNOWN` for rows that are sealed [n].
        digests: of the rows' content.
        near: rows that show nearly the same; None if that is not known.
        excluded: rows that were left out for what they show, and are none of the n.
        statistics: numbers of the rows by name, as far as they are known [n].
    """

    classes: tuple[str, ...]
    paths: Sequence[str]
    parts: NDArray[np.str_]
    labels: NDArray[np.int64]
    digests: Sequence[str]
    near: NearDuplicates | None
    excluded: Sequence[ExcludedRow]
    statistics: Mapping[str, NDArray[np.float64]]

    def label(self, row: int) -> str:
        """Return the label of a row, "" if it is sealed."""
        index = int(self.labels[row])
        return "" if index == UNKNOWN else self.classes[index]

    def issue(self, row: int, kind: IssueKind, score: float, note: str, **more: str) -> Issue:
        """Return an issue of a row; `more` may tell what is suggested and related."""
        return Issue(
            path=self.paths[row],
            part=str(self.parts[row]),
            label=self.label(row),
            suggested=more.get("suggested", ""),
            kind=kind,
            score=round(score, 4),
            related=more.get("related", ""),
            note=note,
        )


@dataclass(frozen=True, slots=True)
class Issues:
    """Findings of an audit of a snapshot.

    Attributes:
        issues: by kind, the worst of each first.
        judged: how many rows have predictions out of sample, of each kind.
        pairs: of classes that are confused, those with the most likely errors first.
    """

    issues: tuple[Issue, ...]
    judged: tuple[int, ...]
    pairs: tuple[ConfusedPair, ...]


ByDigest = Mapping[str, NDArray[np.float64]]
"""Probabilities of the classes by networks that did not learn from a row [K], by its digest."""


def find_issues(rows: AuditedRows, predicted: Sequence[ByDigest]) -> Issues:
    """Return the rows that a person should look at.

    Args:
        rows: of the snapshot.
        predicted: probabilities of each kind; those of a kind are about equally good. A row is
            judged by the first kind that has it. What is predicted for sealed rows is not looked
            at.
    """
    judged: list[list[int]] = [[] for _ in predicted]
    for row, digest in enumerate(rows.digests):
        kind = next((kind for kind, known in enumerate(predicted) if digest in known), None)
        if kind is not None and rows.labels[row] != UNKNOWN:
            judged[kind].append(row)
    issues, pairs = _label_errors(rows, judged, predicted)
    issues += _duplicates(rows)
    issues += _near_duplicates(rows)
    issues += [
        rows.issue(odd.row, _OF_ODDITY[odd.oddity], odd.score, odd.note)
        for odd in odd_pictures(rows.statistics)
    ]
    order = {kind: place for place, kind in enumerate(IssueKind)}
    issues.sort(key=lambda issue: order[issue.kind])
    return Issues(tuple(issues), tuple(map(len, judged)), pairs)


def _label_errors(
    rows: AuditedRows, by_kind: Sequence[Sequence[int]], predicted: Sequence[ByDigest]
) -> tuple[list[Issue], tuple[ConfusedPair, ...]]:
    judged = [row for kind in by_kind for row in kind]
    values, given = np.zeros((len(judged), len(rows.classes))), rows.labels[judged]
    found, start = [], 0
    for kind, known in zip(by_kind, predicted, strict=True):
        own = slice(start, start + len(kind))
        for place, row in enumerate(kind, start):
            values[place] = known[rows.digests[row]]
        found.append(find_label_errors(values[own], given[own]))
        start = own.stop
    issues, whole = [], together(found)
    for place in whole.shown().tolist():
        suggested = int(whole.suggested[place])
        own, other = values[place, given[place]], values[place, suggested]
        likely = "likely" if whole.flagged[place] else "possible"
        note = f"{likely}: probability {own:.3f}, that of {rows.classes[suggested]} {other:.3f}"
        row, score = judged[place], float(whole.scores[place])
        more = {"suggested": rows.classes[suggested]}
        issues.append(rows.issue(row, IssueKind.LABEL_ERROR, score, note, **more))
    return issues, whole.pairs


def _duplicates(rows: AuditedRows) -> Iterator[Issue]:
    """Yield the rows that are equal and have different labels, as far as these are known."""
    for group in exact_duplicates(rows.digests):
        known = [row for row in group if rows.labels[row] != UNKNOWN]
        labels = sorted({rows.label(row) for row in known})
        if len(labels) < 2:
            continue
        note = f"equal pictures are labelled {', '.join(labels)}"
        for row in known:
            other = next(each for each in known if rows.labels[each] != rows.labels[row])
            yield rows.issue(
                row, IssueKind.DUPLICATE_LABELS, len(known), note, related=rows.paths[other]
            )


def _near_duplicates(rows: AuditedRows) -> list[Issue]:
    """Return a row of each pair that is not equal, and the rows that are left out."""
    found = list(_left_out(rows))
    pairs = [] if rows.near is None else rows.near.pairs.tolist()
    distances = [] if rows.near is None else rows.near.distances.tolist()
    for (near, row), distance in zip(pairs, distances, strict=True):
        if rows.digests[row] == rows.digests[near]:
            continue
        known = UNKNOWN not in {int(rows.labels[row]), int(rows.labels[near])}
        if known and rows.labels[row] != rows.labels[near]:
            kind = IssueKind.NEAR_DUPLICATE_LABELS
            note = f"nearly equal, but {rows.paths[near]} is labelled {rows.label(near)}"
        elif rows.parts[row] != rows.parts[near]:
            kind = IssueKind.NEAR_DUPLICATE_PARTS
            note = f"nearly equal to a row of the part {rows.parts[near]}"
        else:
            kind, note = IssueKind.NEAR_DUPLICATE, "nearly equal"
        found.append(rows.issue(row, kind, distance, note, related=rows.paths[near]))
    return sorted(found, key=lambda issue: issue.score)


def _left_out(rows: AuditedRows) -> Iterator[Issue]:
    """Yield the rows that are left out since they show nearly what one of another part does."""
    of_path = {path: row for row, path in enumerate(rows.paths)} if rows.excluded else {}
    for row in rows.excluded:
        label = rows.label(near) if (near := of_path.get(row.near)) is not None else ""
        is_other = bool(label and row.label and label != row.label)
        kind = IssueKind.NEAR_DUPLICATE_LABELS if is_other else IssueKind.NEAR_DUPLICATE_PARTS
        note = f"left out: nearly equal to a row of the part {row.near_part}"
        yield Issue(
            path=row.path,
            part=row.part,
            label=row.label,
            suggested="",
            kind=kind,
            score=round(row.distance, 4),
            related=row.near,
            note=note + (f", which is labelled {label}" if is_other else ""),
        )


def to_csv(issues: Iterable[Issue]) -> str:
    """Return issues as a table; `data.corrections` reads it once its last column is filled in."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(field.name for field in fields(Issue)), "action"])
    writer.writerows([*astuple(issue), ""] for issue in issues)
    return text.getvalue()
