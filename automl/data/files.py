"""What the data layer needs from a store; `automl.storage.objects.ObjectStore` has it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

OnProgress = Callable[[int, int, str], None]


class StoredFile(Protocol):
    """The bytes under one key."""

    @property
    def data(self) -> bytes:
        """The whole content."""


class FileEntry(Protocol):
    """One line of a listing."""

    @property
    def key(self) -> str:
        """The whole key."""

    @property
    def size_bytes(self) -> int:
        """Size of the content."""

    @property
    def etag(self) -> str:
        """Changes with the content."""


class FileStore(Protocol):
    """Where a dataset's files are; read only. Must be picklable: Dask workers read from it."""

    @property
    def uri(self) -> str:
        """Where the keys start; holds no secrets."""

    def get(self, key: str) -> StoredFile:
        """Return the content of a key; raise NotFoundError if there is none."""

    def list(self, prefix: str, start_after: str = "") -> Iterator[FileEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key."""


class SnapshotStore(FileStore, Protocol):
    """Where snapshots are written. Must be picklable too."""

    def put(self, key: str, data: bytes) -> str:
        """Write a key, whatever it held."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a key, or raise PreconditionFailedError if it exists."""
