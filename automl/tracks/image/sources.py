"""Listings of a dataset's source: rows with a path and a label, none of them read yet."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from automl.data.files import FileStore
from automl.errors import DataError, NotFoundError

LABEL_COLUMNS = ("Label", "label", "target", "class")
PATH_COLUMNS = ("File Name", "path", "image")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})


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
    """

    path: str
    label: str
    key: str
    size_bytes: int
    etag: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """All rows of a source.

    Attributes:
        rows: in the source's order.
        store: holds the rows' files.
        pixels: uint8 `[n, H, W, C]` of an array source, else None.
    """

    rows: tuple[SourceRow, ...]
    store: FileStore
    pixels: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Location of the rows.

    Attributes:
        store: holds `key`.
        key: a `.csv` table of files, an `.npz` file, or else the folder of class folders.
        images: holds the table's files; None: `store`.
        images_prefix: where the table's paths start; None: beside the table.
        label: the table's label column; None: the first of the usual names.
    """

    store: FileStore
    key: str
    images: FileStore | None = None
    images_prefix: str | None = None
    label: str | None = None

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
    if suffix == ".csv":
        listing = _list_file_table(location)
    elif suffix == ".npz":
        listing = _list_arrays(location)
    else:
        listing = _list_folders(location)
    if not listing.rows:
        raise DataError(
            f"{location.uri} has no rows.",
            "data.source is a CSV manifest, an .npz file or a folder with one folder per class",
        )
    return listing


def _read_source(location: SourceLocation) -> bytes:
    try:
        return location.store.get(location.key).data
    except NotFoundError as error:
        raise DataError(f"{location.uri} does not exist.", "correct data.source") from error


def read_file_table(
    data: bytes, label: str | None, name: str = "the manifest"
) -> list[tuple[str, str]]:
    """Return path and label of each row of a table of files, without surrounding blanks.

    Users know such a table as a CSV manifest.

    Args:
        data: the file; UTF-8, with or without a byte order mark.
        label: the label column; None: the first of the usual names.
        name: what error messages call the file.

    Raises:
        DataError: it is no CSV text, or a column is missing.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text: {error}.", "save it as UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns = list(reader.fieldnames or ())
        wanted = LABEL_COLUMNS if label is None else (label,)
        label_column = _find_column(name, columns, wanted, "data.label")
        path_column = _find_column(name, columns, PATH_COLUMNS, "the name of the path column")
        return [
            ((line[path_column] or "").strip(), (line[label_column] or "").strip())
            for line in reader
        ]
    except csv.Error as error:
        raise DataError(
            f"{name}, line {reader.line_num}: {error}.", "save it as a CSV file"
        ) from error


def _list_file_table(location: SourceLocation) -> Listing:
    lines = read_file_table(_read_source(location), location.label, location.uri)
    store = location.images or location.store
    beside = location.key.rpartition("/")[0]
    prefix = (beside if location.images_prefix is None else location.images_prefix).strip("/")
    start = f"{prefix}/" if prefix else ""
    files = {entry.key: (entry.size_bytes, entry.etag) for entry in store.list(start)}
    rows = []
    for path, label in lines:
        key = start + str(PurePosixPath(path)) if path else ""
        size_bytes, etag = files.get(key, (0, ""))
        problem = _row_problem(path, label, known=key in files)
        rows.append(SourceRow(path, label, key, size_bytes, etag, problem))
    return Listing(tuple(rows), store)


def _find_column(name: str, columns: Sequence[str], wanted: Sequence[str], remedy: str) -> str:
    for column in wanted:
        if column in columns:
            return column
    raise DataError(
        f"{name} has the columns {', '.join(map(repr, columns)) or '(none)'}, "
        f"but no {' or '.join(map(repr, wanted))}.",
        f"rename a column, or correct {remedy}",
    )


def _row_problem(path: str, label: str, *, known: bool) -> str:
    if not path:
        return "the row has no path"
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        return "the path leaves the folder of images"
    if not known:
        return "there is no such file"
    return "" if label else "the row has no label"


def _list_folders(location: SourceLocation) -> Listing:
    prefix = location.key.strip("/")
    start = f"{prefix}/" if prefix else ""
    rows = []
    for entry in location.store.list(start):
        path = PurePosixPath(entry.key.removeprefix(start))
        hidden = any(name.startswith(".") for name in path.parts)
        if len(path.parts) < 2 or hidden or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        label = path.parts[0].strip()
        rows.append(SourceRow(str(path), label, entry.key, entry.size_bytes, entry.etag))
    return Listing(tuple(rows), location.store)


def _list_arrays(location: SourceLocation) -> Listing:
    data = _read_source(location)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            names = sorted(arrays.files)
            if not {"x", "y"} <= set(names):
                raise DataError(
                    f"{location.uri} has the arrays {', '.join(names) or 'none'}, not x and y.",
                    "save it with numpy.savez_compressed(file, x=images, y=labels)",
                )
            x, y = arrays["x"], arrays["y"]
    except (ValueError, TypeError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise DataError(
            f"{location.uri} cannot be read: {error}.", "save it again, without Python objects"
        ) from error
    pixels, labels = _check_arrays(location, x, y)
    etag = hashlib.sha256(data).hexdigest()
    size_bytes = int(np.prod(pixels.shape[1:]))
    rows = tuple(
        SourceRow(f"x[{index}]", label, "", size_bytes, etag, "" if label else "no label")
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
    values = np.char.decode(y.astype(np.bytes_), "utf-8") if y.dtype.kind == "S" else y
    return shaped.astype(np.uint8, copy=False), [str(value).strip() for value in values.tolist()]
