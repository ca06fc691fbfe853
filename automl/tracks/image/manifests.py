"""Manifests: tables whose rows name files, which may lie in many folders and in several stores.

A path is relative to the folder of images, absolute on this machine, or a URI (`s3://`, `file://`).
Only folders that paths name are listed, not what lies beside them; `few_folders` says which.
"""

from __future__ import annotations

import io
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import eq
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from automl.data.digest_index import DIGEST_BYTES, DigestIndex, Digests, digest_of, digests
from automl.data.files import FileEntry, FileStore, SourceStore
from automl.data.ranged import RangedFile
from automl.data.texts import Coded, CodedBuilder, Texts, TextsBuilder, each
from automl.errors import ConfigError, DataError, Problem
from automl.tracks.image.archives import Archive
from automl.tracks.image.entries import Entries, EntriesBuilder
from automl.tracks.image.folders import is_image_name
from automl.tracks.image.joined import JoinedFiles
from automl.tracks.image.listing import (
    Beside,
    Listing,
    SourceLocation,
    is_hidden,
    label_problem,
    read_source,
    refuse,
    source_size,
)
from automl.tracks.image.parquet import PARQUET_SUFFIXES, read_parquet
from automl.tracks.image.places import Place, read_place
from automl.tracks.image.tables import Columns, TableLine, read_file_table

MOST_FOLDERS = 100  # that are listed one by one
TABLE_SHARE = 0.02  # of the memory left: a manifest's lines take many times its bytes
_AT_ONCE = 1000  # lines of a folder's listing that are compared with the rows together
_REMEDY = "remove these rows or links, or copy what they name to where studies may read"

Open = Callable[[str], tuple[SourceStore, str]]


@dataclass(slots=True, eq=False)
class _Lines:
    """Lines of a manifest in columns.

    Attributes:
        paths, labels, values: see `TableLine`.
        wanted: uint8 `[n, 16]`, digests of the places that the paths name; zeros for none.
        bad: why rows cannot be used, whatever file they name, by their number.
        unfit: why they cannot be used though their file may be there.
    """

    paths: Texts
    labels: Coded
    values: Texts
    wanted: Digests
    bad: Mapping[int, str]
    unfit: Mapping[int, str]

    @classmethod
    def read(cls, location: SourceLocation) -> _Lines:
        """Return the lines of the manifest at a location."""
        paths, labels, values = TextsBuilder(), CodedBuilder(), TextsBuilder()
        bad, unfit, wanted = dict[int, str](), dict[int, str](), bytearray()
        for row, line in enumerate(_lines(location)):
            place = read_place(line.path, with_roots=location.locate is not None)
            paths.append(line.path)
            labels.append(line.label)
            values.append(line.value)
            wanted += bytes(DIGEST_BYTES) if place.problem else place.digest
            if problem := line.problem or place.problem:
                bad[row] = problem
            if problem := label_problem(line.label) or _value_problem(location, line):
                unfit[row] = problem
        found = np.frombuffer(wanted, np.uint8).reshape(-1, DIGEST_BYTES)
        return cls(paths.built(), labels.built(), values.built(), found, bad, unfit)

    def places(self, location: SourceLocation) -> Iterator[Place]:
        """Yield the place of each row's file."""
        for path in self.paths:
            yield read_place(path, with_roots=location.locate is not None)


@dataclass(slots=True, eq=False)
class _Files:
    """Files that were found for the rows of a manifest.

    Attributes:
        wanted: the places that rows name; it gives the first row of each.
        found: int32 `[n]`, place in `entries` of what was found for these rows; -1 for nothing.
        stores: by their numbers.
        entries: what was found.
        numbers: of the stores of these.
        trespasses: why some of them may not be read, by their places in `entries`.
        refused: paths that may not be read, with the reason.
        beside: digests of the URIs of images that are not looked for.
        shown: how people are shown these.
    """

    wanted: DigestIndex
    found: NDArray[np.int32]
    stores: list[FileStore]
    entries: EntriesBuilder = field(default_factory=EntriesBuilder)
    numbers: array[int] = field(default_factory=lambda: array("i"))
    trespasses: dict[int, str] = field(default_factory=dict)
    refused: list[Problem] = field(default_factory=list)
    beside: bytearray = field(default_factory=bytearray)
    shown: TextsBuilder = field(default_factory=TextsBuilder)

    def number(self, store: FileStore) -> int:
        """Return the number of a store; the same place has one number."""
        for number, known in enumerate(self.stores):
            if type(known) is type(store) and known.uri == store.uri:
                return number
        self.stores.append(store)
        return len(self.stores) - 1

    def look(self, root: str, folders: set[str], opens: Open) -> set[str]:
        """Look for the files below one root.

        Args:
            root: of the places.
            folders: that they are in.
            opens: gives the store that holds a folder below the root, and its key there.

        Returns:
            Folders that may not be read; one of their files may be allowed even so.
        """
        allowed, denied = set(), set()
        for folder in sorted(folders):
            try:
                opens(folder)
            except ConfigError:
                denied.add(folder)
            except DataError:  # there is no such folder
                continue
            else:
                allowed.add(folder)
        for folder in few_folders(allowed, MOST_FOLDERS, lambda name: _can_open(name, opens)):
            self._list_folder(Place(root, folder), allowed, opens)
        return denied

    def _list_folder(self, folder: Place, allowed: set[str], opens: Open) -> None:
        store, key = opens(folder.path)
        start, prefix = f"{key}/" * bool(key), f"{folder.path}/" * bool(folder.path)
        number, above = self.number(store), _with_those_above(allowed)
        try:
            entries = self.stores[number].list(start)
            while some := list(islice(entries, _AT_ONCE)):
                paths = [prefix + entry.key.removeprefix(start) for entry in some]
                rows = self._rows_of(folder.root, paths, allowed)
                for entry, path, row in zip(some, paths, rows, strict=True):
                    if row >= 0:
                        self._add(row, number, entry)
                    elif entry.problem and path in above:  # a link may stand for a folder
                        self.refused.append(Problem(folder.root + path, f"it {entry.problem}"))
                    elif is_image_name(path) and not is_hidden(path.removeprefix(prefix)):
                        uri = _uri(store, entry)
                        self.beside += digest_of(uri)
                        self.shown.append(uri if folder.root else entry.key)
        except ConfigError as error:  # a link leads out
            self.refused.append(_refusal(folder.root + folder.path, start, error))

    def _rows_of(self, root: str, paths: Sequence[str], allowed: set[str]) -> list[int]:
        """Return the first row that names each path; -1 where none does."""
        asked = [at for at, path in enumerate(paths) if path.rpartition("/")[0] in allowed]
        rows = np.full(len(paths), -1)
        rows[asked] = self.wanted.find(digests(Place(root, paths[at]).digest for at in asked))
        return rows.tolist()

    def look_alone(self, place: Place, opens: Open) -> None:
        """Look for one file."""
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
                    (row,) = self.wanted.find(digests([place.digest])).tolist()
                    self._add(row, number, entry)

    def _add(self, row: int, number: int, entry: FileEntry) -> None:
        place = self.entries.append(entry)
        self.found[row] = place
        self.numbers.append(number)
        if entry.problem:
            self.trespasses[place] = entry.problem


def _with_those_above(folders: Iterable[str]) -> set[str]:
    """Return folders and all that these are in."""
    found: set[str] = set()
    for folder in folders:
        above = folder
        while above and above not in found:
            found.add(above)
            above = above.rpartition("/")[0]
    return found


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
    lines = _Lines.read(location)
    store = location.images or location.store
    beside = location.key.rpartition("/")[0]
    start = (beside if location.images_prefix is None else location.images_prefix).strip("/")
    folders: dict[str, set[str]] = defaultdict(set)
    for place in lines.places(location):
        if not place.problem:
            folders[place.root].add(place.folder)
    wanted = DigestIndex(lines.wanted)
    files = _Files(wanted, np.full(len(lines.paths), -1, np.int32), [store])
    openers = {root: _opener(root, location, store, start) for root in sorted(folders)}
    denied = {root: files.look(root, folders[root], opens) for root, opens in openers.items()}
    if any(denied.values()):
        places = {place for place in lines.places(location) if not place.problem}
        for place in sorted(places, key=lambda each: (each.root, each.path)):
            if place.folder in denied[place.root]:
                files.look_alone(place, openers[place.root])
    return _listing(location, lines, files)


def _listing(location: SourceLocation, lines: _Lines, files: _Files) -> Listing:
    """Return the listing of rows with the stores that they need.

    Raises:
        DataError: rows name files that may not be read.
    """
    entries, numbers = files.entries.built(), np.asarray(files.numbers, np.int32)
    found = files.found[files.wanted.find(lines.wanted)]  # rows may name the same file
    problems = _problems(lines, found, entries)
    for row in np.flatnonzero(np.isin(found, list(files.trespasses))).tolist():
        if row not in problems:
            place = read_place(lines.paths[row], with_roots=location.locate is not None)
            problem = f"it {files.trespasses[int(found[row])]}"
            files.refused.append(Problem(place.root + place.path, problem))
    refuse(location, sorted(set(files.refused), key=lambda each: each.path), _REMEDY)
    there = found[found >= 0]
    used = np.unique(numbers[there]).tolist() or [0]
    stores = tuple(_sealed(files.stores[number]) for number in used)
    if len(used) > 1:
        entries = replace(entries, places=_joined_keys(entries, numbers, used))
    rows = entries.rows(found, lines.paths, lines.labels, problems, lines.values)
    if all(map(eq, rows.keys, rows.paths)):
        rows = replace(rows, keys=rows.paths)  # they share their letters
    return Listing(
        rows,
        stores[0] if len(stores) == 1 else JoinedFiles(stores),
        named=_named(files, entries, numbers),
        beside=Beside(
            np.frombuffer(files.beside, np.uint8).reshape(-1, DIGEST_BYTES), files.shown.built()
        ),
    )


def _problems(lines: _Lines, found: NDArray[np.int32], entries: Entries) -> dict[int, str]:
    """Return why rows cannot be used, by their number."""
    absent = dict.fromkeys(np.flatnonzero(found < 0).tolist(), "there is no such file")
    for row in np.flatnonzero(np.isin(found, list(entries.unreadable))).tolist():
        absent[row] = entries.problem(int(found[row]))
    return {
        row: lines.bad.get(row) or absent.get(row) or lines.unfit[row]
        for row in sorted({*lines.bad, *absent, *lines.unfit})
    }


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


def _lines(location: SourceLocation) -> Iterator[TableLine]:
    if PurePosixPath(location.key).suffix.lower() not in PARQUET_SUFFIXES:
        data = read_source(location, TABLE_SHARE)
        return read_file_table(data, location.label, location.key, location.uri, location.further)
    wanted = Columns(location.uri, location.label, location.further)
    if isinstance(location.store, Archive):
        return read_parquet(io.BytesIO(read_source(location, TABLE_SHARE)), wanted)
    return read_parquet(RangedFile(location.store, location.key, source_size(location)), wanted)


def _value_problem(location: SourceLocation, line: TableLine) -> str:
    if location.further is None or line.value:
        return ""
    return f"the row has no value in the column {location.further.name!r}"


def _joined_keys(entries: Entries, numbers: NDArray[np.int32], used: Sequence[int]) -> Texts:
    """Return the keys of files in several stores, which are counted anew."""
    number_of = {number: place for place, number in enumerate(used)}
    pairs = zip(each(numbers), entries.places, strict=True)
    return Texts.of(JoinedFiles.key(number_of.get(number, -1), key) for number, key in pairs)


def _named(files: _Files, entries: Entries, numbers: NDArray[np.int32]) -> Digests:
    """Return digests of the URIs of the files that rows name."""
    uris = [store.uri.rstrip("/") for store in files.stores]
    pairs = zip(each(numbers), entries.keys, strict=True)
    return digests(digest_of(f"{uris[number]}/{key}") for number, key in pairs)


def _uri(store: FileStore, entry: FileEntry) -> str:
    return f"{store.uri.rstrip('/')}/{entry.key}"


def _sealed(store: FileStore) -> FileStore:
    """Return a store as it goes to workers: an archive without what is known of its members."""
    return store.files if isinstance(store, Archive) else store
