"""Corrections of a source's rows, which a person has written: rows to drop, or to label anew.

The file is a CSV table with the columns `path`, `action` (`drop` or `relabel`) and `label`, the new
one. The table of `automl data issues` is one too: it has a column `suggested`, from where the new
label is taken, `label` is the one that the row had, and lines without an action change nothing.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from automl.data.files import FileStore
from automl.data.findings import Finding, FindingKind
from automl.errors import DataError, NotFoundError, Problem

MOST_BYTES = 64 * 2**20
_KEY = "data.corrections"
_COLUMNS = ("path", "action", "label", "suggested")


class Action(StrEnum):
    """Change of a row."""

    DROP = "drop"
    RELABEL = "relabel"


@dataclass(frozen=True, slots=True)
class Correction:
    """One line of a file of corrections.

    Attributes:
        line: its number in the file, from 1.
        path: of the rows that it is about.
        action: what becomes of them.
        label: the new one; "" where they are dropped.
        before: the label that the line says they have; None where it does not say.
    """

    line: int
    path: str
    action: Action
    label: str
    before: str | None


@dataclass(frozen=True, slots=True)
class Corrections:
    """A file of corrections, as far as it can be understood.

    Attributes:
        name: of the file, for messages.
        lines: those that ask for something.
        problems: of the other lines.
    """

    name: str
    lines: tuple[Correction, ...]
    problems: tuple[Problem, ...] = ()


class Row(Protocol):
    """A row of a source."""

    @property
    def path(self) -> str:
        """Name of the row."""

    @property
    def label(self) -> str:
        """Label that the source gives it."""


class Applied(NamedTuple):
    """A row that was corrected.

    Attributes:
        path: of the row.
        before: its label in the source.
        after: the one that it was given; None: it was dropped.
    """

    path: str
    before: str
    after: str | None


@dataclass(frozen=True, slots=True)
class Corrected:
    """Rows after their corrections.

    Attributes:
        labels: of the rows, in their order; None for those that are dropped.
        applied: the rows that have changed, in their order.
        findings: what has changed, and what is odd about it.
    """

    labels: tuple[str | None, ...]
    applied: tuple[Applied, ...]
    findings: tuple[Finding, ...]


def load_corrections(store: FileStore, key: str) -> Corrections:
    """Return the corrections in a file.

    Raises:
        DataError: it does not exist, is too large, or is no such table.
    """
    name = f"{store.uri.rstrip('/')}/{key}"
    entry = next((each for each in store.list(key) if each.key == key), None)
    if entry is not None and entry.size_bytes > MOST_BYTES:
        raise DataError(
            f"{name} has {entry.size_bytes:,} bytes, corrections may have {MOST_BYTES:,}.",
            f"correct the source itself, or {_KEY}",
        )
    try:
        data = store.get(key).data
    except NotFoundError as error:
        raise DataError(f"{name} does not exist.", f"correct {_KEY}") from error
    return read_corrections(data, name)


def read_corrections(data: bytes, name: str) -> Corrections:
    """Return what a file of corrections asks for, and what is wrong with its lines.

    Args:
        data: the file; UTF-8, with or without a byte order mark.
        name: of the file, for messages.

    Raises:
        DataError: it is no CSV table with the columns `path`, `action` and `label`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8 text: byte {error.start}.", "save it as UTF-8"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines, problems, number = [], [], 1
    try:
        columns = [column.strip() for column in next(reader, [])]
        _check_columns(columns, name)
        for values in reader:
            number, start = reader.line_num, number + 1
            if not any(value.strip() for value in values):
                continue
            found = _correction(start, values, columns)
            if isinstance(found, Problem):
                problems.append(found)
            elif found is not None:
                lines.append(found)
    except csv.Error as error:
        raise DataError(
            f"{name}, in the row that begins in line {number + 1}: {error}.",
            "save it again: quotes in pairs, a quote in a text doubled",
        ) from error
    return Corrections(name, tuple(lines), tuple(problems))


def _check_columns(columns: Sequence[str], name: str) -> None:
    wanted = [column for column in _COLUMNS if column != "suggested"]
    missing = [column for column in wanted if column not in columns]
    twice = [column for column in _COLUMNS if columns.count(column) > 1]
    if missing or twice:
        wrong = [f"no column {column!r}" for column in missing]
        wrong += [f"the column {column!r} twice" for column in twice]
        raise DataError(
            f"{name} has {' and '.join(wrong)}.",
            f"write the line {','.join(wanted)} on top, with commas; or edit the table of "
            "`automl data issues`",
        )


def _correction(
    line: int, values: Sequence[str], columns: Sequence[str]
) -> Correction | Problem | None:
    """Return what a line asks for, what is wrong with it, or None if it asks for nothing."""
    if len(values) != len(columns):
        return Problem(f"line {line}", f"it has {len(values)} values for {len(columns)} columns")
    path, action, label, suggested = (
        values[columns.index(column)].strip() if column in columns else "" for column in _COLUMNS
    )
    is_of_issues = "suggested" in columns
    if not action and is_of_issues:
        return None
    place = f"line {line}"
    if action not in set(Action):
        return Problem(place, f"the action of {path!r} is {action!r}; write drop or relabel")
    if not path:
        return Problem(place, "it has no path")
    if action == Action.DROP:
        return Correction(line, path, Action.DROP, "", label if is_of_issues else None)
    new = suggested if is_of_issues else label
    if not new:
        column = "suggested" if is_of_issues else "label"
        return Problem(place, f"{path} has no new label; write it in the column {column}")
    return Correction(line, path, Action.RELABEL, new, label if is_of_issues else None)


def apply_corrections(rows: Sequence[Row], corrections: Corrections) -> Corrected:
    """Return the labels of rows after their corrections; the rows themselves stay as they are.

    A line is about all rows of its path.

    Raises:
        DataError: with all lines that are wrong, contradict each other, are about no row, or about
            a row that has another label than the line says.
    """
    wanted = {line.path: line for line in corrections.lines}
    present: dict[str, set[str]] = defaultdict(set)
    known = set()
    for row in rows:
        known.add(row.label)
        if row.path in wanted:
            present[row.path].add(row.label)
    problems = [*corrections.problems, *_contradictions(corrections.lines)]
    for line in corrections.lines:
        problem = _misfit(line, present)
        if problem:
            problems.append(Problem(f"line {line.line}", problem))
    if problems:
        raise DataError(
            f"{len(problems)} lines of {corrections.name} cannot be applied.",
            f"correct or remove them; {_KEY} names the file",
            sorted(problems, key=lambda problem: int(problem.path.split()[1])),
        )
    labels = tuple(_after(row, wanted.get(row.path)) for row in rows)
    applied = tuple(
        Applied(row.path, row.label, label)
        for row, label in zip(rows, labels, strict=True)
        if label != row.label
    )
    idle = wanted.keys() - {each.path for each in applied}
    return Corrected(labels, applied, (*_findings(applied, known), *_idle(sorted(idle))))


def _after(row: Row, line: Correction | None) -> str | None:
    if line is None:
        return row.label
    return None if line.action is Action.DROP else line.label


def _contradictions(lines: Sequence[Correction]) -> Iterator[Problem]:
    first: dict[str, Correction] = {}
    for line in lines:
        other = first.setdefault(line.path, line)
        if (other.action, other.label) != (line.action, line.label):
            yield Problem(
                f"line {line.line}", f"{line.path} is corrected otherwise in line {other.line}"
            )


def _misfit(line: Correction, present: dict[str, set[str]]) -> str:
    """Return why a line cannot be about the rows that are present, or ""."""
    if line.path not in present:
        return f"the source has no row {line.path!r}"
    labels = present[line.path]
    # an empty one is not told by the table; one that is the new one was corrected in the source
    if not line.before or labels & {line.before, line.label}:
        return ""
    has = " or ".join(map(repr, sorted(labels)))
    return (
        f"the row {line.path} is labelled {has}, not {line.before!r} as the line says; write a new "
        "label in the column suggested"
    )


def _findings(applied: Sequence[Applied], known: set[str]) -> Iterator[Finding]:
    dropped = [each.path for each in applied if each.after is None]
    if dropped:
        text = f"{len(dropped):,} rows are left out by {_KEY}"
        yield Finding.of(FindingKind.DROPPED_ROWS, text, dropped, len(dropped))
    changed = [each for each in applied if each.after is not None]
    if changed:
        names = [f"{each.path}: {each.before} -> {each.after}" for each in changed]
        text = f"{len(changed):,} rows are labelled anew by {_KEY}"
        yield Finding.of(FindingKind.RELABELLED_ROWS, text, names, len(changed))
    fresh = sorted({each.after for each in changed if each.after is not None} - known)
    if fresh:
        text = f"these labels are those of {_KEY} alone, no row of the source has them"
        yield Finding.of(FindingKind.NEW_LABELS, text, fresh, len(fresh))


def _idle(paths: Sequence[str]) -> Iterator[Finding]:
    if paths:
        text = f"{len(paths):,} rows have the labels already that {_KEY} gives them"
        yield Finding.of(FindingKind.IDLE_CORRECTIONS, text, paths, len(paths))
