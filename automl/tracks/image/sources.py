"""Listings of a dataset's source: rows with a path and a label, none of them read yet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from automl.data.corrections import Applied
from automl.data.files import FileEntry, FileStore
from automl.data.findings import Finding
from automl.data.names import is_unicode, readable
from automl.errors import DataError, NotFoundError, Problem
from automl.machine.memory import usable_bytes
from automl.tracks.image.folders import is_image_name, read_folders
from automl.tracks.image.npz import read_npz
from automl.tracks.image.tables import (
    TABLE_SUFFIXES,
    FurtherColumn,
    TableLine,
    read_file_table,
)

MOST_PROBLEMS = 20  # that are told
ARRAYS_SHARE = 0.5  # of the memory left: a file of arrays, and then what it is expanded to
TABLE_SHARE = 0.02  # a manifest's lines take many times its bytes


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as the source names it.

    Attributes:
        path: how the source calls the row; reports use it.
        label: text, without surrounding blanks.
        key: of its file in `Listing.store`; "" for a row of an array.
        size_bytes: of the file or array row.
        etag: changes when the row's bytes do.
        problem: why the row cannot be used, or "".
        value: of the location's further column; "" without one.
    """

    path: str
    label: str
    key: str
    size_bytes: int
    etag: str
    problem: str = ""
    value: str = ""

    def labelled(self, label: str) -> SourceRow:
        """Return the row with another label, which mends one that has none."""
        problem = "" if self.problem == _label_problem(self.label) else self.problem
        return replace(self, label=label, problem=problem)


@dataclass(frozen=True, slots=True)
class Listing:
    """All rows of a source.

    Attributes:
        rows: in the source's order.
        store: holds the rows' files.
        pixels: uint8 `[n, H, W, C]` of an array source, else None.
        findings: what is odd about the source.
        unnamed: keys of images beside a manifest's that are in no row of it.
        applied: the rows that a person's corrections have changed.
    """

    rows: tuple[SourceRow, ...]
    store: FileStore
    pixels: NDArray[np.uint8] | None = None
    findings: tuple[Finding, ...] = ()
    unnamed: tuple[str, ...] = ()
    applied: tuple[Applied, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Location of the rows.

    Attributes:
        store: holds `key`.
        key: a table of files, an `.npz` file, or else the folder of class folders.
        images: holds the table's files; None: `store`.
        images_prefix: where the table's paths start; None: beside the table.
        label: the table's label column; None: the first of the usual names.
        further: a column that the table has to have, too.
        name: key of the study file that names the location.
    """

    store: FileStore
    key: str
    images: FileStore | None = None
    images_prefix: str | None = None
    label: str | None = None
    further: FurtherColumn | None = None
    name: str = "data.source"

    @property
    def uri(self) -> str:
        """Place of the source, for people."""
        return f"{self.store.uri.rstrip('/')}/{self.key}".rstrip("/")


def list_source(location: SourceLocation) -> Listing:
    """Return the source's rows.

    Raises:
        DataError: the source has no rows, or is not of a known form.
    """
    suffix = PurePosixPath(location.key).suffix.lower()
    if location.further is not None and suffix not in TABLE_SUFFIXES:
        raise DataError(
            f"{location.uri} has no columns, and {location.further.key} names the column "
            f"{location.further.name!r}.",
            f"use a manifest ({', '.join(TABLE_SUFFIXES)}) with that column, or data.split: "
            "stratified",
        )
    if suffix in TABLE_SUFFIXES:
        listing = _list_file_table(location)
    elif suffix == ".npz":
        listing = _list_arrays(location)
    else:
        listing = _list_folders(location)
    if not listing.rows:
        raise DataError(
            f"{location.uri} has no rows.",
            f"{location.name} is a manifest ({', '.join(TABLE_SUFFIXES)}), an .npz file, or a "
            "folder with one folder per class",
        )
    return listing


def _read_source(location: SourceLocation, share: float) -> bytes:
    """Return the bytes of a table or of arrays, which may take a share of the memory left."""
    most = int(share * usable_bytes())
    entry = next(iter(location.store.list(location.key)), None)
    if entry is not None and entry.key == location.key and entry.size_bytes > most:
        raise DataError(
            f"{location.uri} has {entry.size_bytes:,} bytes, and may have {most:,} here.",
            "divide it, use a folder of files, or prepare where there is more memory",
        )
    try:
        return location.store.get(location.key).data
    except NotFoundError as error:
        raise DataError(f"{location.uri} does not exist.", f"correct {location.name}") from error


def _refuse_entries(location: SourceLocation, entries: Iterable[FileEntry]) -> None:
    """Refuse a source that has files which may not be read.

    Raises:
        DataError: there are some.
    """
    found = [entry for entry in entries if entry.problem]
    if found:
        raise DataError(
            f"{len(found)} files or folders of {location.uri} may not be read.",
            "remove these links, or copy there what they lead to",
            [Problem(entry.key, f"it {entry.problem}") for entry in found[:MOST_PROBLEMS]],
        )


def _list_file_table(location: SourceLocation) -> Listing:
    data = _read_source(location, TABLE_SHARE)
    lines = read_file_table(data, location.label, location.key, location.uri, location.further)
    store = location.images or location.store
    beside = location.key.rpartition("/")[0]
    prefix = (beside if location.images_prefix is None else location.images_prefix).strip("/")
    start = f"{prefix}/" if prefix else ""
    files = {entry.key: entry for entry in store.list(start)}
    rows, refused = [], {}
    for line in lines:
        path, label = line.path, line.label
        key = start + str(PurePosixPath(path)) if path else ""
        entry = files.get(key)
        size_bytes, etag = (0, "") if entry is None else (entry.size_bytes, entry.etag)
        problem = line.problem or _row_problem(path, label, entry) or _value_problem(location, line)
        if not problem and entry is not None and entry.problem:
            refused[key] = entry
        rows.append(SourceRow(path, label, key, size_bytes, etag, problem, line.value))
    _refuse_entries(location, refused.values())
    named = {row.key for row in rows}
    unnamed = (k for k in files if k not in named and is_image_name(k) and not _is_hidden(k))
    return Listing(tuple(rows), store, unnamed=tuple(unnamed))


def _row_problem(path: str, label: str, entry: FileEntry | None) -> str:
    if not path:
        return "the row has no path"
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        return "the path leaves the folder of images"
    if entry is None:
        return "there is no such file"
    return _file_problem(entry) or _label_problem(label)


def _value_problem(location: SourceLocation, line: TableLine) -> str:
    if location.further is None or line.value:
        return ""
    return f"the row has no value in the column {location.further.name!r}"


def _file_problem(entry: FileEntry) -> str:
    return f"it {entry.unreadable}" if entry.unreadable else ""


def _label_problem(label: str) -> str:
    if not label:
        return "the row has no label"
    return "" if is_unicode(label) else "the label is no Unicode text"


def _list_folders(location: SourceLocation) -> Listing:
    prefix = location.key.strip("/")
    start = f"{prefix}/" if prefix else ""
    entries = list(location.store.list(start))
    # a link to a folder would hide a whole class
    _refuse_entries(location, (e for e in entries if not _is_hidden(e.key.removeprefix(start))))
    found = read_folders(entries, start, location.uri)
    rows = []
    for file in found.files:
        path, entry = str(file.path), file.entry
        named = "" if is_unicode(path) else "its name is not UTF-8 text; rename it"
        problem = named or _file_problem(entry) or _label_problem(file.label)
        label = readable(file.label)
        rows.append(
            SourceRow(readable(path), label, entry.key, entry.size_bytes, entry.etag, problem)
        )
    return Listing(tuple(rows), location.store, findings=tuple(found.findings))


def _is_hidden(path: str) -> bool:
    return any(name.startswith(".") for name in path.split("/"))


def _list_arrays(location: SourceLocation) -> Listing:
    data = _read_source(location, ARRAYS_SHARE)
    x, y = read_npz(data, location.uri, int(ARRAYS_SHARE * usable_bytes()))
    pixels, labels = _check_arrays(location, x, y)
    etag = hashlib.sha256(data).hexdigest()
    size_bytes = int(np.prod(pixels.shape[1:]))
    rows = tuple(
        SourceRow(f"x[{index}]", label, "", size_bytes, etag, _label_problem(label))
        for index, label in enumerate(labels)
    )
    return Listing(rows, location.store, pixels)


def _check_arrays(
    location: SourceLocation, x: NDArray[np.generic], y: NDArray[np.generic]
) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the pixels as uint8 `[n, H, W, C]`, C of 1 or 3, and the labels as text."""
    shaped = x[..., np.newaxis] if x.ndim == 3 else x
    if x.dtype != np.uint8 or shaped.ndim != 4 or shaped.shape[3] not in {1, 3}:
        raise DataError(
            f"x of {location.uri} is {x.dtype} {list(x.shape)}.",
            "it has to be uint8 [n, H, W], [n, H, W, 1] or [n, H, W, 3]",
        )
    if 0 in shaped.shape[1:3]:
        raise DataError(f"The images of {location.uri} have no pixels: {list(x.shape)}.", "fix x")
    if y.ndim != 1 or len(y) != len(x) or y.dtype.kind not in "iuUS":
        raise DataError(
            f"y of {location.uri} is {y.dtype} {list(y.shape)}, x has {len(x)} rows.",
            "it has to be one integer or text per row of x",
        )
    try:
        values = np.char.decode(y.astype(np.bytes_), "utf-8") if y.dtype.kind == "S" else y
    except UnicodeDecodeError as error:
        raise DataError(f"y of {location.uri} is not UTF-8 text.", "save it as texts") from error
    return shaped.astype(np.uint8, copy=False), [str(value).strip() for value in values.tolist()]
