"""Files of sources: opened only where the run may read them, whatever links lead there.

A path is judged when it is opened, not before: the open descriptor tells its real path, and what is
read is what was judged. A link that is replaced between two looks changes nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeAlias

from automl.domain.sources import ARCHIVE_SUFFIXES, Sources, is_within, real_path
from automl.errors import AutoMLError, DataError, NotFoundError, Problem
from automl.storage.file import entry_of, file_errors, part_of
from automl.storage.objects import ObjectEntry, ObjectStore, StoredObject, check_key, check_prefix
from automl.storage.open import open_store

MOST_LINKS = 10_000  # to folders, in one listing: links among folders multiply
_MOST_PROBLEMS = 20  # that are told
_SPECIAL = "is neither a file nor a folder"
_LISTED = ("source", "test_source")  # locations whose folders hold nothing but data

SourceStore: TypeAlias = "SourceFolder | SourceObjects"


def open_source(uri: str, sources: Sources) -> tuple[SourceStore, str]:
    """Return the store that holds a location of data, and its key there.

    Args:
        uri: a path or URI of the section `data`.
        sources: what may be read; every later read obeys it too, in whatever process.

    Raises:
        ConfigError: it may not be read.
        DataError: it does not exist, or is a device or a pipe.
    """
    place = sources.place(uri)
    if place.startswith("s3://"):
        bucket, _, key = place.removeprefix("s3://").partition("/")
        return SourceObjects(open_store(f"s3://{bucket}"), sources), key
    path = Path(place)
    with file_errors(uri, str(path.parent)):
        holder = _holder(path)
        if holder is None:
            raise DataError(f"{path} does not exist.", "correct the paths of the section data")
        if not (holder.is_file() or holder.is_dir()):
            raise DataError(f"{uri} {_SPECIAL}.", "name a file or a folder")
    return SourceFolder(holder.parent, sources), path.relative_to(holder.parent).as_posix()


def _holder(path: Path) -> Path | None:
    """Return what is there of a path: itself, or the archive that it leads into; else None."""
    if path.exists():
        return path
    holder = next((above for above in path.parents if above.exists()), path)
    is_archive = holder.suffix.lower() in ARCHIVE_SUFFIXES and holder.is_file()
    return holder if is_archive else None


def source_problems(locations: Mapping[str, str], sources: Sources) -> list[Problem]:
    """Return what keeps locations of data from being read, all of it.

    Folders of rows are walked: a link in them that leads where nothing may be read is named. Paths
    in a manifest are not read here.

    Args:
        locations: paths and URIs of the section `data`, by key.
        sources: what may be read.
    """
    try:
        sources.check_setting()
    except AutoMLError as error:
        return [Problem("AUTOML_SOURCES", str(error))]
    problems = []
    for key, uri in locations.items():
        try:
            found = list(islice(_problems(uri, sources, is_listed=key in _LISTED), _MOST_PROBLEMS))
        except AutoMLError as error:
            found = [str(error)]
        problems += [Problem(f"data.{key}", problem) for problem in found]
    return problems


def _problems(uri: str, sources: Sources, *, is_listed: bool) -> Iterator[str]:
    path = sources.place(uri)
    if path.startswith("s3://"):
        return
    with file_errors(uri, str(Path(path).parent)):
        holder = _holder(Path(path))
        if holder is None:
            yield f"{uri} does not exist"
            return
        mode = holder.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        yield f"{uri} {_SPECIAL}"
    elif stat.S_ISDIR(mode) and is_listed:
        for entry in SourceFolder(Path(path), sources).list(""):
            if entry.problem and not is_hidden(entry.key):
                yield f"{entry.key} {entry.problem}"


def is_hidden(key: str) -> bool:
    """Return whether a file, or a folder that it is in, has a name that starts with a dot."""
    return key.startswith(".") or "/." in key


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """Files below a local folder that a run may read; read only.

    Entries of a listing that may not be read say so: links that lead elsewhere. Such a link to a
    folder is listed as one entry. What nobody could read says so, too: devices and pipes, links
    that lead nowhere. Nothing of the home is listed.

    Attributes:
        root: the folder, its links resolved.
        sources: what may be read.
    """

    root: Path
    sources: Sources

    @property
    def uri(self) -> str:
        """The folder."""
        return str(self.root)

    def get(self, key: str) -> StoredObject:
        """Return the content of a key.

        Raises:
            NotFoundError: there is no such file.
            DataError: it is no file but a device or a pipe, which is not opened.
            ConfigError: it may not be read.
        """
        with file_errors(key, self.uri), self._opened(key) as (file, status):
            modified = datetime.fromtimestamp(status.st_mtime, UTC)
            return StoredObject(file.read(), entry_of(key, status).etag, modified)

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return a part of the content of a key, less where it ends before; see `get`."""
        with file_errors(key, self.uri), self._opened(key) as (file, _):
            return part_of(file, start, size_bytes)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key.

        A prefix that is the key of a file lists this file alone.

        Raises:
            ConfigError: the folder may not be read.
            DataError: too many links lead from folder to folder.
        """
        check_prefix(prefix)
        with file_errors(prefix, self.uri):
            if prefix and not prefix.endswith("/"):
                path = self.root / prefix
                if path.is_file():
                    yield entry_of(prefix, path.stat(), self._problem(path))
                    return
            at = prefix.rpartition("/")[0]
            folder = real_path(self.root / at)
            if is_within(folder, self.sources.home):
                return
            walk = _Walk(self, prefix, start_after)
            yield from walk.entries(folder, at + "/" * bool(at), frozenset())

    def _problem(self, path: Path) -> str:
        return self.sources.problem(real_path(path))

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[BinaryIO, os.stat_result]]:
        """Yield a file; a descriptor names it without opening it, and it is judged by that."""
        check_key(key)
        seen = os.open(self.root / key, os.O_PATH | os.O_CLOEXEC)
        try:
            self.sources.check(os.readlink(f"/proc/self/fd/{seen}"), key)  # noqa: PTH115
            status = os.fstat(seen)
            if stat.S_ISDIR(status.st_mode):
                raise NotFoundError(f"There is no {key} in {self.uri}.")
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{key} {_SPECIAL}.", "replace it by a file")
            with open(f"/proc/self/fd/{seen}", "rb") as file:  # noqa: PTH123 - what was judged
                yield file, status
        finally:
            os.close(seen)


class _Walk:
    """One listing of a folder.

    Args:
        folder: what is listed.
        prefix: beginning of the keys.
        after: only later keys are listed.
    """

    def __init__(self, folder: SourceFolder, prefix: str, after: str) -> None:
        self._root, self._sources = folder.root, folder.sources
        self._prefix, self._after = prefix, after
        self._links = 0

    def entries(self, real: str, at: str, above: frozenset[str]) -> Iterator[ObjectEntry]:
        """Yield what is below a folder.

        Args:
            real: its path, without links.
            at: its key with a final slash; "" for the root.
            above: folders that it lies in, by the way that was gone, without links.
        """
        for name, target in self._children(real, at):
            path = target or f"{real.rstrip('/')}/{name.rstrip('/').removeprefix(at)}"
            if target is None and path == self._sources.home:
                continue
            problem = "" if target is None else self._link_problem(target, {*above, real})
            if name.endswith("/") and not problem:
                if self._is_related(name):
                    yield from self.entries(path, name, above | {real})
                continue
            key = name.rstrip("/")
            if key.startswith(self._prefix) and key > self._after:
                entry = _looked_at(path, key, is_link=target is not None)
                if entry is not None:
                    yield replace(entry, problem=problem) if problem else entry

    def _children(self, real: str, at: str) -> list[tuple[str, str | None]]:
        """Return the keys in a folder, sorted, folders with a slash; and where links lead."""
        found: list[tuple[str, str | None]] = []
        try:
            descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return found
        try:
            self._sources.check(os.readlink(f"/proc/self/fd/{descriptor}"), at or str(self._root))  # noqa: PTH115
            with os.scandir(descriptor) as children:
                for child in children:
                    target = None
                    if child.is_symlink():
                        target = real_path(f"{real}/{child.name}")
                    found.append((at + child.name + "/" * _is_folder(child), target))
        finally:
            os.close(descriptor)
        return sorted(found, key=lambda each: each[0])

    def _link_problem(self, target: str, above: set[str]) -> str:
        """Return why a link is not followed, as the end of a sentence; "" if it is.

        Raises:
            DataError: too many links were followed.
        """
        if target in above:
            return "leads back to a folder that holds it"
        problem = self._sources.problem(target)
        if not problem and os.path.isdir(target):  # noqa: PTH112
            self._links += 1
            if self._links > MOST_LINKS:
                raise DataError(
                    f"More than {MOST_LINKS:,} links in {self._root} lead to folders.",
                    "copy the files, or name a folder with fewer links",
                )
        return problem

    def _is_related(self, name: str) -> bool:
        """Return whether keys in a folder, named with its slash, may be listed."""
        is_related = name.startswith(self._prefix) or self._prefix.startswith(name)
        return is_related and (name > self._after or self._after.startswith(name))


def _is_folder(child: os.DirEntry[str]) -> bool:
    """Return whether a child of a folder is one, or a link that leads to one."""
    try:
        return child.is_dir()
    except OSError:  # a link that leads to itself, or where this user may not look
        return False


def _looked_at(path: str, key: str, *, is_link: bool) -> ObjectEntry | None:
    """Return the line of a listing for what is at a path; None if it was deleted meanwhile."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return _broken(key, "is a link that leads nowhere") if is_link else None
    except PermissionError:
        return _broken(key, "is in a folder that this user may not look into")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return _broken(key, "is a link that leads to itself")
    is_plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    entry = entry_of(key, status)
    return entry if is_plain else replace(entry, unreadable=_SPECIAL)


def _broken(key: str, why: str) -> ObjectEntry:
    return ObjectEntry(key, 0, datetime.fromtimestamp(0, UTC), "", unreadable=why)


@dataclass(frozen=True, slots=True)
class SourceObjects:
    """Objects of a bucket that a run may read; read only.

    Attributes:
        bucket: the whole bucket.
        sources: what may be read; entries of a listing that may not be read say so.
    """

    bucket: ObjectStore
    sources: Sources

    @property
    def uri(self) -> str:
        """The bucket."""
        return self.bucket.uri

    def get(self, key: str) -> StoredObject:
        """Return the content of a key.

        Raises:
            NotFoundError: there is no such object.
            ConfigError: it may not be read.
        """
        self.sources.check(self._place(key), f"{self.uri}/{key}")
        return self.bucket.get(key)

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return a part of the content of a key, less where it ends before; see `get`."""
        self.sources.check(self._place(key), f"{self.uri}/{key}")
        return self.bucket.get_range(key, start, size_bytes)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key; none of the home's."""
        for entry in self.bucket.list(prefix, start_after):
            place = self._place(entry.key)
            if not is_within(place, self.sources.home):
                problem = self.sources.problem(place)
                yield replace(entry, problem=problem) if problem else entry

    def _place(self, key: str) -> str:
        return f"{self.uri}/{key}"
