"""Manifests: tables whose rows name files, which may lie in many folders and in several stores.

A path is relative to the folder of images, absolute on this machine, or a URI (`s3://`, `file://`).
Only folders that paths name are listed, not what lies beside them; `few_folders` says which.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from automl.data.files import FileEntry, FileStore, SourceStore
from automl.data.ranged import RangedFile
from automl.errors import ConfigError, DataError, Problem
from automl.tracks.image.archives import Archive, ArchiveEntry
from automl.tracks.image.folders import is_image_name
from automl.tracks.image.joined import JoinedFiles
from automl.tracks.image.listing import (
    Listing,
    SourceLocation,
    SourceRow,
    file_problem,
    is_hidden,
    label_problem,
    read_source,
    refuse,
    source_size,
)
from automl.tracks.image.parquet import PARQUET_SUFFIXES, read_parquet
from automl.tracks.image.tables import Columns, TableLine, read_file_table

MOST_FOLDERS = 100  # that are listed one by one
TABLE_SHARE = 0.02  # of the memory left: a manifest's lines take many times its bytes
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LEAVES = "the path leaves the folder of images"
_REMEDY = "remove these rows or links, or copy what they name to where studies may read"

Open = Callable[[str], tuple[SourceStore, str]]


@dataclass(frozen=True, slots=True)
class _Place:
    """Place that a path names.

    Attributes:
        root: "" for the folder of images, "/" for this machine, `s3://bucket/` for a bucket.
        path: below the root.
        problem: why it names none, or "".
    """

    root: str
    path: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Paths below a root that rows name.

    Attributes:
        paths: the paths.
        folders: all folders that these are in; a link may stand for one.
    """

    paths: set[str]
    folders: set[str]

    @classmethod
    def of(cls, paths: set[str]) -> _Wanted:
        """Return paths with their folders."""
        folders: set[str] = set()
        for path in paths:
            folder = path.rpartition("/")[0]
            while folder and folder not in folders:
                folders.add(folder)
                folder = folder.rpartition("/")[0]
        return cls(paths, folders)


@dataclass(slots=True)
class _Files:
    """Files that were found for the rows of a manifest.

    Attributes:
        found: by their places: number of the store, and line of its listing.
        stores: by their numbers.
        refused: paths that may not be read, with the reason.
        others: images that are not looked for: their URIs, and how they are shown.
    """

    found: dict[_Place, tuple[int, FileEntry]] = field(default_factory=dict)
    stores: list[FileStore] = field(default_factory=list)
    refused: list[Problem] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)

    def number(self, store: FileStore) -> int:
        """Return the number of a store; the same place has one number."""
        for number, known in enumerate(self.stores):
            if type(known) is type(store) and known.uri == store.uri:
                return number
        self.stores.append(store)
        return len(self.stores) - 1

    def look(self, root: str, paths: set[str], opens: Open) -> None:
        """Look for the files of one root.

        Args:
            root: of the places.
            paths: of the places.
            opens: gives the store that holds a folder below the root, and its key there.
        """
        by_folder: dict[str, set[str]] = defaultdict(set)
        for path in paths:
            by_folder[path.rpartition("/")[0]].add(path)
        allowed = []
        for folder in sorted(by_folder):
            try:
                opens(folder)
            except ConfigError:  # one of its files may be allowed even so
                for path in sorted(by_folder[folder]):
                    self._look_alone(_Place(root, path), opens)
            except DataError:  # there is no such folder
                continue
            else:
                allowed.append(folder)
        wanted = _Wanted.of({path for folder in allowed for path in by_folder[folder]})
        for folder in few_folders(allowed, MOST_FOLDERS, lambda name: _can_open(name, opens)):
            self._list_folder(_Place(root, folder), wanted, opens)

    def _list_folder(self, folder: _Place, wanted: _Wanted, opens: Open) -> None:
        store, key = opens(folder.path)
        start, prefix = f"{key}/" * bool(key), f"{folder.path}/" * bool(folder.path)
        number = self.number(store)
        try:
            for entry in self.stores[number].list(start):
                below = entry.key.removeprefix(start)
                if prefix + below in wanted.paths:
                    self.found[_Place(folder.root, prefix + below)] = (number, entry)
                elif entry.problem and prefix + below in wanted.folders:
                    uri = folder.root + prefix + below
                    self.refused.append(Problem(uri, f"it {entry.problem}"))
                elif is_image_name(below) and not is_hidden(below):
                    uri = f"{store.uri.rstrip('/')}/{entry.key}"
                    self.others.append((uri, uri if folder.root else entry.key))
        except ConfigError as error:  # a link leads out
            self.refused.append(_refusal(folder.root + folder.path, start, error))

    def _look_alone(self, place: _Place, opens: Open) -> None:
        uri = place.root + place.path
        try:
            store, key = opens(place.path)
        except ConfigError as error:
            self.refused.append(_refusal(uri, uri, error))
        except DataError:  # there is no such file
            return
        else:
            number = self.number(store)
            for entry in self.stores[number].list(key):
                if entry.key == key:
                    self.found[place] = (number, entry)

    def listing(self, rows: Iterable[tuple[SourceRow, _Place]]) -> Listing:
        """Return the listing of rows with the stores that they need."""
        rows = list(rows)
        used = sorted({self.found[place][0] for _, place in rows if place in self.found}) or [0]
        numbers = {number: place for place, number in enumerate(used)}
        stores = tuple(_sealed(self.stores[number]) for number in used)
        keyed = []
        for row, place in rows:
            key = ""
            if place in self.found:
                number, entry = self.found[place]
                key = entry.place if isinstance(entry, ArchiveEntry) else entry.key
                key = key if len(used) == 1 else JoinedFiles.key(numbers[number], key)
            keyed.append(replace(row, key=key))
        return Listing(tuple(keyed), stores[0] if len(stores) == 1 else JoinedFiles(stores))


def _refusal(path: str, name: str, error: ConfigError) -> Problem:
    """Return the problem of a place that may not be read.

    Args:
        path: the place.
        name: what the error calls it.
        error: the error.
    """
    why = error.message.removesuffix(".")
    return Problem(path, f"it {why[len(name) + 1 :]}" if why.startswith(f"{name} ") else why)


def list_manifest(location: SourceLocation) -> Listing:
    """Return the rows that a manifest names.

    Raises:
        DataError: it is none, or names files that may not be read.
    """
    lines = _lines(location)
    store = location.images or location.store
    beside = location.key.rpartition("/")[0]
    start = (beside if location.images_prefix is None else location.images_prefix).strip("/")
    places = [_place(line.path, with_roots=location.locate is not None) for line in lines]
    paths: dict[str, set[str]] = defaultdict(set)
    for place in places:
        if not place.problem:
            paths[place.root].add(place.path)
    files = _Files(stores=[store])
    for root in sorted(paths):
        files.look(root, paths[root], _opener(root, location, store, start))
    rows = [
        (_row(location, line, place, files), place)
        for line, place in zip(lines, places, strict=True)
    ]
    for row, place in rows:
        _, entry = files.found.get(place, (0, None))
        if entry is not None and entry.problem and not row.problem:
            files.refused.append(Problem(place.root + place.path, f"it {entry.problem}"))
    refuse(location, sorted(set(files.refused), key=lambda each: each.path), _REMEDY)
    return replace(files.listing(rows), named=_named(files), unnamed=dict(files.others))


def few_folders(folders: Iterable[str], most: int, can_list: Callable[[str], bool]) -> list[str]:
    """Return few folders below which all of these are.

    Folders in others of these count as theirs. Where there are more than `most`, the deepest ones
    give way to the folders that they are in, level by level, if these can be listed.

    Args:
        folders: without slashes at their ends; "" is the folder of all.
        most: how many are enough.
        can_list: tells of a folder whether it can be listed.
    """
    kept = _outermost(folders)
    while len(kept) > most:
        merged = _merged(kept, can_list)
        if merged == kept:
            break
        kept = merged
    return kept


def _outermost(folders: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for folder in sorted(set(folders), key=lambda each: f"{each}/" if each else ""):
        if not kept or not (kept[-1] == "" or folder.startswith(f"{kept[-1]}/")):
            kept.append(folder)
    return kept


def _merged(folders: list[str], can_list: Callable[[str], bool]) -> list[str]:
    """Return the folders, the deepest that can be merged replaced by those they are in."""
    by_depth: dict[int, list[str]] = defaultdict(list)
    for folder in folders:
        by_depth[len(folder.split("/")) if folder else 0].append(folder)
    for depth in sorted(by_depth.keys() - {0}, reverse=True):
        above = {folder.rpartition("/")[0] for folder in by_depth[depth]}
        known = {folder: can_list(folder) for folder in sorted(above)}
        if any(known.values()):
            parents = [parent for parent, can in known.items() if can]
            return _outermost([*folders, *parents])
    return folders


def _can_open(folder: str, opens: Open) -> bool:
    try:
        opens(folder)
    except (ConfigError, DataError):
        return False
    return True


def _opener(root: str, location: SourceLocation, store: SourceStore, start: str) -> Open:
    """Return what opens places below a root."""
    if not root:
        return lambda folder: (store, "/".join(filter(None, (start, folder))))
    locate = location.locate
    assert locate is not None
    return lambda folder: locate(root + folder)


def _lines(location: SourceLocation) -> list[TableLine]:
    if PurePosixPath(location.key).suffix.lower() not in PARQUET_SUFFIXES:
        data = read_source(location, TABLE_SHARE)
        return read_file_table(data, location.label, location.key, location.uri, location.further)
    wanted = Columns(location.uri, location.label, location.further)
    if isinstance(location.store, Archive):
        return read_parquet(io.BytesIO(read_source(location, TABLE_SHARE)), wanted)
    return read_parquet(RangedFile(location.store, location.key, source_size(location)), wanted)


def _place(path: str, *, with_roots: bool) -> _Place:
    """Return what a path names.

    Args:
        path: as the manifest has it.
        with_roots: whether it may be absolute.
    """
    if not path:
        return _Place("", "", "the row has no path")
    root, below, problem = _split(path)
    parts = below.split("/")
    if problem:
        return _Place(root, below, problem)
    if root and not with_roots:
        return _Place(root, below, _LEAVES)
    if ".." in parts or "\0" in below:
        return _Place(
            root, below, "the path has a segment '..' or a zero byte" if root else _LEAVES
        )
    if root.startswith("s3://"):
        crooked = len(root) < len("s3://b/") or {"", "."} & set(parts)
        return _Place(root, below, "the s3:// address is not plain" if crooked else "")
    plain = str(PurePosixPath(below))
    return _Place(root, plain, "the path names no file" if plain == "." else "")


def _split(path: str) -> tuple[str, str, str]:
    """Return the root that a path begins with, the rest, and why it cannot be read, or ""."""
    scheme = _SCHEME.match(path)
    if scheme is None:
        return ("/", path.lstrip("/"), "") if path.startswith("/") else ("", path, "")
    rest = path[scheme.end() :]
    if scheme[1] == "s3":
        bucket, _, key = rest.partition("/")
        return f"s3://{bucket}/", key, ""
    if scheme[1] == "file":
        try:
            parts = urlsplit(path)
        except ValueError:
            return "", path, "the file:// address cannot be read"
        if parts.netloc in {"", "localhost"} and not (parts.query or parts.fragment):
            return "/", unquote(parts.path).lstrip("/"), ""
        return "", path, "the file:// address is no file of this machine"
    return "", path, f"files of {scheme[1]}:// cannot be read"


def _row(location: SourceLocation, line: TableLine, place: _Place, files: _Files) -> SourceRow:
    entry = files.found.get(place, (0, None))[1]
    size_bytes, etag = (0, "") if entry is None else (entry.size_bytes, entry.etag)
    missing = "there is no such file" if entry is None else file_problem(entry)
    unvalued = _value_problem(location, line)
    problem = line.problem or place.problem or missing or label_problem(line.label) or unvalued
    return SourceRow(line.path, line.label, "", size_bytes, etag, problem, line.value)


def _value_problem(location: SourceLocation, line: TableLine) -> str:
    if location.further is None or line.value:
        return ""
    return f"the row has no value in the column {location.further.name!r}"


def _named(files: _Files) -> frozenset[str]:
    """Return the places of all files that rows name."""
    return frozenset(
        f"{files.stores[number].uri.rstrip('/')}/{entry.key}"
        for number, entry in files.found.values()
    )


def _sealed(store: FileStore) -> FileStore:
    """Return a store as it goes to workers: an archive without what is known of its members."""
    return store.files if isinstance(store, Archive) else store
