"""An object store in a folder, safe for many processes; also over NFS with working `flock`."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from automl.errors import (
    NotFoundError,
    PreconditionFailedError,
    StorageAccessError,
    StorageError,
    StorageFullError,
)
from automl.storage.durable import make_folder, replace_file, sync_folder, written_file
from automl.storage.objects import ObjectEntry, StoredObject, check_key, check_prefix

_LOCKS, _TEMPORARY = ".locks", ".tmp"  # folders in the root that are no part of the keys
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the last: a process's limit of file sizes
_STALE_S = 86_400.0  # a temporary file this old was left by a process that died


class FileObjectStore:
    """Objects as files below a folder; the keys are their paths.

    Nothing is created before the first write, so a folder that is only read may be read-only.

    Args:
        root: the folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().resolve()
        self._is_swept = False

    @property
    def uri(self) -> str:
        """The absolute folder."""
        return str(self._root)

    def get(self, key: str) -> StoredObject:
        """Return the content of a key; raise NotFoundError if there is none."""
        path = self._path(key)
        with self._translated(key), path.open("rb") as file:
            data = file.read()
            return StoredObject(data, _etag(data), _time(os.fstat(file.fileno())))

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return a part of the content of a key; raise NotFoundError if there is none."""
        path = self._path(key)
        with self._translated(key), path.open("rb") as file:
            return part_of(file, start, size_bytes)

    def put(self, key: str, data: bytes) -> None:
        """Write a key, whatever it held."""
        self._replace(key, lambda file: file.write(data))

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a key that does not exist yet, or raise PreconditionFailedError."""
        path = self._path(key)
        with self._translated(key):
            make_folder(path.parent)
            with written_file(self._scratch(), lambda file: file.write(data)) as temporary:
                try:
                    os.link(temporary, path)
                except FileExistsError as error:
                    raise PreconditionFailedError(f"{key} exists in {self.uri} already.") from error
                sync_folder(path.parent)
        return _etag(data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Write a key that still has `etag`, or raise PreconditionFailedError."""
        path = self._path(key)
        with (
            self._translated(key),
            written_file(self._scratch(), lambda file: file.write(data)) as temporary,
            self._locked(key),
        ):
            try:
                is_same = _etag(path.read_bytes()) == etag
            except (FileNotFoundError, NotADirectoryError):
                is_same = False
            if not is_same:
                raise PreconditionFailedError(f"{key} in {self.uri} has changed or is gone.")
            replace_file(temporary, path)
        return _etag(data)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key."""
        check_prefix(prefix)
        with self._translated(prefix):
            yield from self._walk(self._root, "", prefix, start_after)

    def delete(self, key: str) -> None:
        """Remove a key; one that does not exist is fine."""
        path = self._path(key)
        if not path.is_file():
            return
        with self._translated(key), self._locked(key):
            path.unlink(missing_ok=True)
            sync_folder(path.parent)

    def upload(self, path: Path, key: str) -> None:
        """Write the content of a local file to a key."""
        with self._translated(str(path)), path.open("rb") as source:
            self._replace(key, lambda file: shutil.copyfileobj(source, file, 1 << 20))

    def download(self, key: str, path: Path) -> None:
        """Write the content of a key to a local file; raise NotFoundError if there is none."""
        with self._translated(key), self._path(key).open("rb") as source:
            make_folder(path.parent)
            with written_file(
                path.parent, lambda file: shutil.copyfileobj(source, file, 1 << 20)
            ) as temporary:
                replace_file(temporary, path)

    def now(self) -> datetime:
        """Return the present time by the file system's clock, which may be a server's."""
        with (
            self._translated("the clock"),
            written_file(self._scratch(), lambda file: file.write(b"now")) as temporary,
        ):
            return _time(temporary.stat())

    def abandoned_files(self) -> Sequence[Path]:
        """Return the temporary files of processes that died; the next write removes them."""
        found = []
        with self._translated("the folder of temporary files"):
            for path in (self._root / _TEMPORARY).glob("*"):
                try:
                    age_s = time.time() - path.stat().st_mtime
                except FileNotFoundError:  # its writer has just finished
                    continue
                if age_s > _STALE_S:
                    found.append(path)
        return found

    def _path(self, key: str) -> Path:
        check_key(key)
        if key.partition("/")[0] in {_LOCKS, _TEMPORARY}:
            raise NotFoundError(f"{key} in {self.uri} is reserved for the store itself.")
        return self._root / key

    def _replace(self, key: str, write: Callable[[BinaryIO], object]) -> None:
        path = self._path(key)
        with self._translated(key):
            make_folder(path.parent)
            with written_file(self._scratch(), write) as temporary, self._locked(key):
                replace_file(temporary, path)

    def _scratch(self) -> Path:
        """Return the folder of temporary files, on the same file system as the objects."""
        folder = self._root / _TEMPORARY
        make_folder(folder)
        if not self._is_swept:
            self._is_swept = True
            for path in self.abandoned_files():
                path.unlink(missing_ok=True)
        return folder

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the lock under which the key's content may be replaced or removed."""
        folder = self._root / _LOCKS
        make_folder(folder)
        name = hashlib.blake2b(key.encode(), digest_size=1).hexdigest()  # 256 locks for all keys
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)  # frees the lock

    def _walk(self, folder: Path, at: str, prefix: str, after: str) -> Iterator[ObjectEntry]:
        """Yield what is below `folder`, whose key with a final slash is `at`."""
        names = []
        try:
            with os.scandir(folder) as children:
                for child in children:  # a folder sorts as its keys do: with the slash
                    is_folder = child.is_dir()
                    if not (at == "" and child.name in {_LOCKS, _TEMPORARY}):
                        names.append(at + child.name + "/" * is_folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in sorted(names):
            if name.endswith("/"):
                is_related = name.startswith(prefix) or prefix.startswith(name)
                if is_related and (name > after or after.startswith(name)):
                    yield from self._walk(self._root / name, name, prefix, after)
            elif name.startswith(prefix) and name > after:
                try:
                    status = (self._root / name).stat()
                except FileNotFoundError:  # deleted meanwhile, or a dangling link
                    continue
                yield entry_of(name, status)

    def _translated(self, what: str) -> AbstractContextManager[None]:
        return file_errors(what, self.uri)


@contextmanager
def file_errors(what: str, uri: str) -> Iterator[None]:
    """Turn errors of the operating system into the platform's.

    Args:
        what: what the block is about.
        uri: the folder that it is in.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise NotFoundError(f"There is no {what} in {uri}.") from error
    except FileExistsError as error:
        raise StorageAccessError(
            f"{what} cannot be written in {uri}: {error.filename} is a file.",
            "no key may be a folder of another; remove one of the two",
        ) from error
    except PermissionError as error:
        raise StorageAccessError(
            f"{what} in {uri} cannot be accessed: {error.strerror}.",
            "give this user the rights to the folder; writing also needs hard links there",
        ) from error
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(
                f"{what} cannot be written in {uri}, which is full: {error.strerror}.",
                "make room there or raise the quota, then run it again: what was stored before "
                "is whole, and the work goes on from there",
            ) from error
        raise StorageError(
            f"{what} in {uri} cannot be accessed: {error.strerror or error}.",
            "look after the disk, then try again",
        ) from error


def part_of(file: BinaryIO, start: int, size_bytes: int) -> bytes:
    """Return a part of an open file; memory is taken for what is there, not for what is asked."""
    there = os.fstat(file.fileno()).st_size - start
    file.seek(start)
    return file.read(max(0, min(size_bytes, there)))


def _etag(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def entry_of(key: str, status: os.stat_result, problem: str = "") -> ObjectEntry:
    """Return the line of a listing for a file; its tag changes whenever the file is written."""
    tag = f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"
    return ObjectEntry(key, status.st_size, _time(status), tag, problem)


def _time(status: os.stat_result) -> datetime:
    return datetime.fromtimestamp(status.st_mtime, UTC)
