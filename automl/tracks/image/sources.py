"""Listings of a dataset's source: rows with a path and a label, none of them read yet."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from automl.data.findings import Finding, FindingKind
from automl.data.names import is_unicode, readable
from automl.data.texts import Coded, CodedBuilder, Texts, TextsBuilder, each
from automl.domain.sources import ARCHIVE_SUFFIXES
from automl.errors import DataError
from automl.machine.memory import usable_bytes
from automl.tracks.image.archives import Archive, find_archive
from automl.tracks.image.decode import MOST_SIDE
from automl.tracks.image.folders import is_image_name, read_folders
from automl.tracks.image.listing import (
    Listing,
    SourceLocation,
    is_hidden,
    label_problem,
    read_entries,
    read_source,
)
from automl.tracks.image.manifests import list_manifest
from automl.tracks.image.npz import read_npz
from automl.tracks.image.parquet import PARQUET_SUFFIXES
from automl.tracks.image.source_rows import SourceRow, SourceRows
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
    start = f"{PurePosixPath(PurePosixPath(key).name, inside)}/"
    crooked = [] if inside else sorted(archive.crooked.items())
    images = [(readable(start + name), why) for name, why in crooked if is_image_name(name)]
    listing = _list_folders(replace(location, store=archive, key=inside), start, images)
    test_folder = f"{key}/{listing.test_folder}" if listing.test_folder else ""
    findings = list(listing.findings)
    others = [readable(name) for name in archive.crooked if not inside and not is_image_name(name)]
    if others:
        text = f"{len(others):,} files are no rows (names that lead out of the archive)"
        findings.append(Finding.of(FindingKind.IGNORED_FILES, text, others, len(others)))
    return replace(listing, store=archive.files, findings=tuple(findings), test_folder=test_folder)


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


def _common_folder(names: Iterable[str]) -> str:
    """Return the deepest folder that all files are in; "" for the root."""
    common: list[str] | None = None
    for name in names:
        parts = name.split("/")[:-1]
        if common is None:
            common = parts
        while common and common != parts[: len(common)]:
            common.pop()
    return "/".join(common or [])


def _list_folders(
    location: SourceLocation, shown: str = "", crooked: Sequence[tuple[str, str]] = ()
) -> Listing:
    """Return the rows of class folders.

    Args:
        location: of the folder that they are in.
        shown: what paths begin with, for people.
        crooked: paths of rows before them, which cannot be used, and why.
    """
    prefix = location.key.strip("/")
    start = f"{prefix}/" if prefix else ""
    entries = read_entries(location, start)  # a link to a folder would hide a whole class
    found = read_folders(entries.keys, start, location.uri, may_split=location.may_split)
    paths, labels = TextsBuilder(), CodedBuilder()
    problems = {row: why for row, (_, why) in enumerate(crooked)}
    for path, _ in crooked:
        paths.append(path)
        labels.append("")
    for row, file in enumerate(found.files, start=len(crooked)):
        paths.append(shown + readable(file.path))
        labels.append(readable(file.label))
        named = "" if is_unicode(file.path) else "its name is not UTF-8 text; rename it"
        problem = named or entries.problem(file.place) or label_problem(file.label)
        if problem:
            problems[row] = problem
    places = np.concatenate([np.full(len(crooked), -1), found.places, found.tests])
    rows = entries.rows(places.astype(np.int32), paths.built(), labels.built(), problems)
    return Listing(
        rows,
        location.store,
        findings=tuple(found.findings),
        test_folder=start + found.test_folder if found.test_folder else "",
        tests=len(found.tests),
    )


def _list_arrays(location: SourceLocation) -> Listing:
    data = read_source(location, ARRAYS_SHARE)
    x, y = read_npz(data, location.uri, int(ARRAYS_SHARE * usable_bytes()))
    pixels, labels = _check_arrays(location, x, y)
    problems = {row: why for row, label in enumerate(labels) if (why := label_problem(label))}
    none = Texts.blank(len(labels))
    rows = SourceRows(
        paths=Texts.of(f"x[{row}]" for row in range(len(labels))),
        labels=labels,
        keys=none,
        sizes=np.full(len(labels), math.prod(pixels.shape[1:])),
        etags=Coded([hashlib.sha256(data).hexdigest()], np.zeros(len(labels), np.int32)),
        values=none,
        problems=problems,
    )
    return Listing(rows, location.store, pixels)


def _check_arrays(
    location: SourceLocation, x: NDArray[np.generic], y: NDArray[np.generic]
) -> tuple[NDArray[np.uint8], Coded]:
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
    labels = Coded.of(str(value).strip() for value in each(values))
    return shaped.astype(np.uint8, copy=False), labels
