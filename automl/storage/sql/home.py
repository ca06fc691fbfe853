"""A home whose logs and leases are in a database, and whose objects are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from sqlalchemy import select

from automl.domain.layout import StudyKeys
from automl.errors import NotFoundError, PreconditionFailedError
from automl.storage.leases import TTL_S, Leases
from automl.storage.objects import ObjectEntry, ObjectStore, StoredObject
from automl.storage.sql.database import Database
from automl.storage.sql.log import SqlStudyLog
from automl.storage.sql.records import SqlRecords
from automl.storage.sql.tables import LOG
from automl.storage.study_log import StudyLog


class SqlHome:
    """A home with study logs and leases in a database.

    The rows carry the store's URI, so that homes may share a database; all processes of one home
    must name it alike.

    Args:
        store: the objects; it may ignore the conditions of conditional writes.
        database: the logs and the leases.
    """

    def __init__(self, store: ObjectStore, database: Database) -> None:
        self._store, self._database = GuardedObjectStore(store, database), database

    @property
    def store(self) -> ObjectStore:
        """The objects; conditional writes are made under a lock of the database."""
        return self._store

    def study_log(self, study: str) -> StudyLog:
        """Return the log of the study called `study`."""
        return SqlStudyLog(self._database, self._store.uri, study)

    def leases(self, study: str, ttl_s: float = TTL_S) -> Leases:
        """Return the leases of the study called `study`."""
        records = SqlRecords(self._database, self._store.uri)
        return Leases(records, StudyKeys(study).leases, ttl_s)

    def study_names(self) -> list[str]:
        """Return the names of all studies, sorted."""
        mine = select(LOG.c.study).where(LOG.c.home == self._store.uri, LOG.c.version == 0)
        return sorted(str(row.study) for row in self._database.read(mine))


class GuardedObjectStore:
    """An object store whose conditional writes are made under a lock of a database.

    The condition is checked and the object written while the lock is held, so that a store that
    ignores conditions is safe. This holds between all who share the database, for keys that are
    written with conditions only: plain writes do not wait for the lock.

    Args:
        store: where the objects are.
        database: has the locks.
    """

    def __init__(self, store: ObjectStore, database: Database) -> None:
        self._store, self._database = store, database

    @property
    def uri(self) -> str:
        """The store's own."""
        return self._store.uri

    def get(self, key: str) -> StoredObject:
        """Return the content of a key; raise NotFoundError if there is none."""
        return self._store.get(key)

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return a part of the content of a key; raise NotFoundError if there is none."""
        return self._store.get_range(key, start, size_bytes)

    def put(self, key: str, data: bytes) -> None:
        """Write a key, whatever it held."""
        self._store.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a key that does not exist yet, or raise PreconditionFailedError."""
        with self._locked(key):
            if self._etag(key) is not None:
                raise PreconditionFailedError(f"{key} exists in {self.uri} already.")
            return self._written(key, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Write a key that still has `etag`, or raise PreconditionFailedError."""
        with self._locked(key):
            if self._etag(key) != etag:
                raise PreconditionFailedError(f"{key} in {self.uri} has changed or is gone.")
            return self._written(key, data)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key."""
        return self._store.list(prefix, start_after)

    def delete(self, key: str) -> None:
        """Remove a key; one that does not exist is fine."""
        self._store.delete(key)

    def upload(self, path: Path, key: str) -> None:
        """Write the content of a local file to a key."""
        self._store.upload(path, key)

    def download(self, key: str, path: Path) -> None:
        """Write the content of a key to a local file; raise NotFoundError if there is none."""
        self._store.download(key, path)

    def now(self) -> datetime:
        """Return the present time in UTC by the store's clock."""
        return self._store.now()

    def _locked(self, key: str) -> AbstractContextManager[None]:
        return self._database.exclusive(f"{self.uri}: {key}")

    def _written(self, key: str, data: bytes) -> str:
        """Write a key whose lock is held, and return its etag."""
        self._store.put(key, data)
        return self._store.get(key).etag

    def _etag(self, key: str) -> str | None:
        try:
            return self._store.get(key).etag
        except NotFoundError:
            return None
