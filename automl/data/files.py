"""Seams of the data layer to a store; `automl.storage.objects.ObjectStore` fits all of them."""

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

    @property
    def problem(self) -> str:
        """Reason why the content may not be read, as the end of a sentence; "" if it may."""

    @property
    def unreadable(self) -> str:
        """Reason why nobody could read the content, likewise; "" if it can be tried."""


class FileStore(Protocol):
    """Store of a dataset's files, read only. It must be picklable: Dask workers read from it."""

    @property
    def uri(self) -> str:
        """Place where the keys start; it holds no secrets."""

    def get(self, key: str) -> StoredFile:
        """Return the content of a key; raise NotFoundError if there is none."""

    def list(self, prefix: str, start_after: str = "") -> Iterator[FileEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key."""


class SourceStore(FileStore, Protocol):
    """Store of a source's files, of which parts can be read: archives are."""

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return a part of the content of a key, less where it ends before.

        Args:
            key: the key; NotFoundError is raised if there is none.
            start: first byte, from 0.
            size_bytes: 1 or more.
        """


class SnapshotStore(FileStore, Protocol):
    """Store that snapshots are written to. It must be picklable too."""

    def put(self, key: str, data: bytes) -> None:
        """Write a key, whatever it held."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a key, or raise PreconditionFailedError if it exists."""

    def delete(self, key: str) -> None:
        """Remove a key; one that is not there is no error."""
