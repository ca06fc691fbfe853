"""An object store in the memory of one process, for tests and trials of other code."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from automl.errors import NotFoundError, PreconditionFailedError, StorageError
from automl.storage.durable import make_folder, replace_file, written_file
from automl.storage.objects import ObjectEntry, StoredObject, check_key, check_prefix


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryObjectStore:
    """Objects in a dictionary; gone with the process.

    Args:
        clock: the store's clock, in UTC.
    """

    def __init__(self, clock: Callable[[], datetime] = _utc_now) -> None:
        self._clock = clock
        self._objects: dict[str, StoredObject] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """A name that tells nothing more than the kind of store."""
        return "memory:"

    def get(self, key: str) -> StoredObject:
        """Return the content of a key; raise NotFoundError if there is none."""
        check_key(key)
        with self._lock:
            stored = self._objects.get(key)
        if stored is None:
            raise NotFoundError(f"There is no {key} in {self.uri}.")
        return stored

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return a part of the content of a key; raise NotFoundError if there is none."""
        return self.get(key).data[start : start + size_bytes]

    def put(self, key: str, data: bytes) -> None:
        """Write a key, whatever it held."""
        check_key(key)
        with self._lock:
            self._write(key, data)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a key that does not exist yet, or raise PreconditionFailedError."""
        check_key(key)
        with self._lock:
            if key in self._objects:
                raise PreconditionFailedError(f"{key} exists in {self.uri} already.")
            return self._write(key, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Write a key that still has `etag`, or raise PreconditionFailedError."""
        check_key(key)
        with self._lock:
            stored = self._objects.get(key)
            if stored is None or stored.etag != etag:
                raise PreconditionFailedError(f"{key} in {self.uri} has changed or is gone.")
            return self._write(key, data)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key."""
        check_prefix(prefix)
        with self._lock:
            objects = dict(self._objects)
        for key in sorted(objects):
            if not key.startswith(prefix) or key <= start_after:
                continue
            stored = objects[key]
            yield ObjectEntry(key, len(stored.data), stored.modified, stored.etag)

    def delete(self, key: str) -> None:
        """Remove a key; one that does not exist is fine."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def upload(self, path: Path, key: str) -> None:
        """Write the content of a local file to a key."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
        self.put(key, data)

    def download(self, key: str, path: Path) -> None:
        """Write the content of a key to a local file; raise NotFoundError if there is none."""
        data = self.get(key).data
        make_folder(path.parent)
        with written_file(path.parent, lambda file: file.write(data)) as temporary:
            replace_file(temporary, path)

    def now(self) -> datetime:
        """Return the present time in UTC."""
        return self._clock()

    def _write(self, key: str, data: bytes) -> str:
        etag = hashlib.blake2b(data, digest_size=16).hexdigest()
        self._objects[key] = StoredObject(data, etag, self._clock())
        return etag
