"""Tables of files, which users know as manifests: CSV, tab-separated values, JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TextIO

from automl.errors import DataError

LABEL_COLUMNS = ("Label", "label", "target", "class")
PATH_COLUMNS = ("File Name", "path", "image")


@dataclass(frozen=True, slots=True)
class TableLine:
    """One row of a table of files.

    Attributes:
        path: without surrounding blanks.
        label: the same.
        problem: why the row cannot be used, or "".
        value: of the further column that was asked for, without surrounding blanks; else "".
    """

    path: str
    label: str
    problem: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class FurtherColumn:
    """A column that a table has to have besides those of paths and labels.

    Attributes:
        name: of the column.
        key: of the study file, which names it.
    """

    name: str
    key: str


def read_file_table(
    data: bytes,
    label: str | None,
    key: str = ".csv",
    name: str = "the manifest",
    further: FurtherColumn | None = None,
) -> Iterator[TableLine]:
    """Yield the rows of a table of files; empty lines are none.

    Args:
        data: the file; UTF-8, with or without a byte order mark.
        label: the label column; None: the first of the usual names.
        key: the file's name or its end, which tells the form; CSV if it does not.
        name: what error messages call the file.
        further: a column whose values are wanted, too.

    Raises:
        DataError: it is no text of its form, or a column is missing or there twice.
    """
    try:
        data.decode("utf-8-sig")  # all of it, before any row is told
    except UnicodeDecodeError as error:
        place = f"byte {error.start}"
        raise DataError(f"{name} is not UTF-8 text: {place}.", "save it as UTF-8") from error
    read = _FORMS.get(PurePosixPath(f"x{key}").suffix.lower(), _FORMS[".csv"])
    return read(data, Columns(name, label, further))


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that a table has to have.

    Attributes:
        name: of the table, for people.
        label: the label column; None: the first of the usual names.
        further: a column that is wanted, too.
    """

    name: str
    label: str | None
    further: FurtherColumn | None = None

    def find(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the columns of paths and labels, and of the further one if any.

        Raises:
            DataError: one is missing, or there twice.
        """
        labels = LABEL_COLUMNS if self.label is None else (self.label,)
        found = self._first(columns, labels, "data.label")
        path = self._first(columns, PATH_COLUMNS, "the name of the path column")
        if self.further is None:
            return path, found
        return path, found, self._first(columns, (self.further.name,), self.further.key)

    def _first(self, columns: Sequence[str], wanted: Sequence[str], remedy: str) -> str:
        for column in wanted:
            if columns.count(column) > 1:
                raise DataError(f"{self.name} has the column {column!r} twice.", "rename one")
            if column in columns:
                return column
        raise DataError(  # the names themselves may be the content of quite another file
            f"{self.name} has {len(columns)} columns, but no {' or '.join(map(repr, wanted))}.",
            f"rename a column, or correct {remedy}",
        )


def _separated(separator: str) -> Callable[[bytes, Columns], Iterator[TableLine]]:
    def read(data: bytes, wanted: Columns) -> Iterator[TableLine]:
        reader = csv.reader(_text(data, ""), strict=True, delimiter=separator)
        line = 1
        try:
            columns = next(reader, [])
            at = [columns.index(column) for column in wanted.find(columns)]
            for values in reader:
                if values:
                    yield _line_of(values, at, len(columns))
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{wanted.name}, in the row that begins in line {line}: {error}.",
                "save it again: quotes in pairs, a quote in a text doubled",
            ) from error

    return read


def _line_of(values: Sequence[str], at: Sequence[int], columns: int) -> TableLine:
    path, label, *further = (values[place].strip() if place < len(values) else "" for place in at)
    problem = f"the row has {len(values)} values for {columns} columns"
    return TableLine(path, label, "" if len(values) == columns else problem, *further)


def _text(data: bytes, newline: str) -> TextIO:
    """Return a file's text, which is decoded as it is read; see `open` for `newline`."""
    return io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=newline)


def _json_lines(data: bytes, wanted: Columns) -> Iterator[TableLine]:
    found: tuple[str, ...] | None = None
    for number, line in enumerate(_text(data, "\n"), start=1):
        if not line.strip():
            continue
        document = _object(line.removesuffix("\n"), f"{wanted.name}, line {number}")
        found = found or wanted.find(list(document))
        texts = [document.get(column) for column in found]
        path, label, *further = ("" if value is None else str(value).strip() for value in texts)
        odd = [c for c, value in zip(found[:2], texts[:2], strict=True) if not _is_scalar(value)]
        odd += [c for c in found[2:] if not _is_scalar_or_float(document.get(c))]
        problem = f"{' and '.join(map(repr, odd))} of line {number} is no text or number"
        yield TableLine(path, label, problem if odd else "", *further)
    if found is None:
        wanted.find([])


def _object(line: str, place: str) -> Mapping[str, Any]:
    """Return the object that a line holds.

    Raises:
        DataError: it holds none, or one with a key twice.
    """
    try:
        document = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: {error}.", "write one JSON object in each line") from error
    if not isinstance(document, Mapping):
        raise DataError(f"{place} is no object.", "write one JSON object in each line")
    return document


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key is there twice")
    return document


def _is_scalar(value: object) -> bool:
    return value is None or (isinstance(value, str | int) and not isinstance(value, bool))


def _is_scalar_or_float(value: object) -> bool:
    """Return whether a value of a further column is a text or a number, such as a time."""
    return isinstance(value, float) or _is_scalar(value)


_FORMS: Mapping[str, Callable[[bytes, Columns], Iterator[TableLine]]] = {
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
TEXT_SUFFIXES = tuple(_FORMS)
