"""Listings of a dataset's source: rows with a path and a label, none of them read yet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from automl.data.findings import Finding, FindingKind
from automl.data.names import is_unicode, readable
from automl.domain.sources import ARCHIVE_SUFFIXES
from automl.errors import DataError
from automl.machine.memory import usable_bytes
from automl.tracks.image.archives import Archive, find_archive
from automl.tracks.image.decode import MOST_SIDE
from automl.tracks.image.folders import is_image_name, read_folders
from automl.tracks.image.listing import (
    Listing,
    SourceLocation,
    SourceRow,
    file_problem,
    is_hidden,
    label_problem,
    read_source,
    refuse_entries,
)
from automl.tracks.image.manifests import list_manifest
from automl.tracks.image.npz import read_npz
from automl.tracks.image.parquet import PARQUET_SUFFIXES
from automl.tracks.image.tables import TEXT_SUFFIXES

ARRAYS_SHARE = 0.5  # of the memory left: a file of arrays, and then what it is expanded to
TABLE_SUFFIXES = (*TEXT_SUFFIXES, *PARQUET_SUFFIXES)

__all__ = ["Listing", "SourceLocation", "SourceRow", "list_source"]


def list_source(location: SourceLocation) -> Listing:
    """Return the source's rows.

    Raises:
        ConfigError: it may not be read, or takes a package that is not installed.
        DataError: the source has no rows, or is not of a known form.
    """
    if location.images is not None:
        found = find_archive(location.images, location.images_prefix or "")
        if found is not None:
            images = Archive.open(location.images, found[0])
            location = replace(location, images=images, images_prefix=found[1])
    found = find_archive(location.store, location.key)
    listing = _list_plain(location) if found is None else _list_archive(location, *found)
    if not listing.rows:
        raise DataError(
            f"{location.uri} has no rows.",
            f"{location.name} is a manifest ({', '.join(TABLE_SUFFIXES)}), an .npz file, or a "
            f"folder with one folder per class; manifest and folder may be in an archive "
            f"({', '.join(ARCHIVE_SUFFIXES)})",
        )
    return listing


def _list_plain(location: SourceLocation) -> Listing:
    suffix = PurePosixPath(location.key).suffix.lower()
    if suffix in TABLE_SUFFIXES:
        return list_manifest(location)
    _refuse_columns(location)
    if suffix == ".npz":
        return _list_arrays(location)
    return _list_folders(location)


def _refuse_columns(location: SourceLocation) -> None:
    """Refuse a source without columns where one is wanted.

    Raises:
        DataError: one is.
    """
    if location.further is not None:
        raise DataError(
            f"{location.uri} has no columns, and {location.further.key} names the column "
            f"{location.further.name!r}.",
            f"use a manifest ({', '.join(TABLE_SUFFIXES)}) with that column, or data.split: "
            "stratified",
        )


def _list_archive(location: SourceLocation, key: str, inside: str) -> Listing:
    """Return the rows of an archive.

    A manifest above all images tells the rows; without one the folders are the classes.

    Args:
        location: of the source.
        key: of the archive.
        inside: of a manifest or folder in it; "" for all of it.
    """
    archive = Archive.open(location.store, key)
    table = inside or _manifest_of(archive)
    if PurePosixPath(table).suffix.lower() in TABLE_SUFFIXES:
        return list_manifest(replace(location, store=archive, key=table, locate=None))
    _refuse_columns(location)
    listing = _list_folders(replace(location, store=archive, key=inside))
    start = PurePosixPath(PurePosixPath(key).name, inside)
    rows = [
        replace(row, path=str(start / row.path), key=archive.entries[row.key].place)
        for row in listing.rows
    ]
    test_folder = f"{key}/{listing.test_folder}" if listing.test_folder else ""
    listing = replace(listing, store=archive.files, test_folder=test_folder)
    if inside:
        return replace(listing, rows=tuple(rows))
    crooked, findings = [], list(listing.findings)
    for name, why in sorted(archive.crooked.items()):
        if is_image_name(name):
            path = readable(f"{start}/{name}")
            crooked.append(SourceRow(path, "", "", 0, "", why))
    others = [readable(name) for name in archive.crooked if not is_image_name(name)]
    if others:
        text = f"{len(others):,} files are no rows (names that lead out of the archive)"
        findings.append(Finding.of(FindingKind.IGNORED_FILES, text, others, len(others)))
    return replace(listing, rows=(*crooked, *rows), findings=tuple(findings))


def _manifest_of(archive: Archive) -> str:
    """Return the manifest that lies above all images of an archive; "" if there is none.

    Raises:
        DataError: there are several.
    """
    names = [name for name in archive.names if not is_hidden(name)]
    images = (name for name in names if is_image_name(name))
    above = _common_folder(images)
    found = [
        name
        for name in names
        if PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES
        and f"{above}/".startswith(f"{name.rpartition('/')[0]}/".lstrip("/"))
    ]
    if len(found) > 1:
        told = ", ".join(found[:5])
        raise DataError(
            f"{archive.uri} has {len(found)} manifests: {told}.",
            f"name one as data.source, such as {archive.uri}/{found[0]}, or the folder of class "
            "folders",
        )
    return found[0] if found else ""


def _common_folder(names: Iterator[str]) -> str:
    """Return the deepest folder that all files are in; "" for the root."""
    common: list[str] | None = None
    for name in names:
        parts = name.split("/")[:-1]
        if common is None:
            common = parts
        while common and common != parts[: len(common)]:
            common.pop()
    return "/".join(common or [])


def _list_folders(location: SourceLocation) -> Listing:
    prefix = location.key.strip("/")
    start = f"{prefix}/" if prefix else ""
    entries = list(location.store.list(start))
    # a link to a folder would hide a whole class
    refuse_entries(location, (e for e in entries if not is_hidden(e.key.removeprefix(start))))
    found = read_folders(entries, start, location.uri, may_split=location.may_split)
    rows = []
    for file in sorted(found.files, key=lambda file: file.is_test):
        path, entry = str(file.path), file.entry
        named = "" if is_unicode(path) else "its name is not UTF-8 text; rename it"
        problem = named or file_problem(entry) or label_problem(file.label)
        label = readable(file.label)
        rows.append(
            SourceRow(readable(path), label, entry.key, entry.size_bytes, entry.etag, problem)
        )
    return Listing(
        tuple(rows),
        location.store,
        findings=tuple(found.findings),
        test_folder=start + found.test_folder if found.test_folder else "",
        tests=sum(file.is_test for file in found.files),
    )


def _list_arrays(location: SourceLocation) -> Listing:
    data = read_source(location, ARRAYS_SHARE)
    x, y = read_npz(data, location.uri, int(ARRAYS_SHARE * usable_bytes()))
    pixels, labels = _check_arrays(location, x, y)
    etag = hashlib.sha256(data).hexdigest()
    size_bytes = int(np.prod(pixels.shape[1:]))
    rows = tuple(
        SourceRow(f"x[{index}]", label, "", size_bytes, etag, label_problem(label))
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
    if max(shaped.shape[1:3]) > MOST_SIDE:
        raise DataError(
            f"The images of {location.uri} have sides of over {MOST_SIDE:,} pixels: "
            f"{list(x.shape)}.",
            "fix x",
        )
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
