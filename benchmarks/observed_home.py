"""A home whose operations all go through one point, which may count them, fail them or kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from automl.domain.events import Event
from automl.domain.settings import Settings
from automl.storage.home import Home, ObjectHome
from automl.storage.leases import TTL_S, Leases, Records
from automl.storage.objects import ObjectEntry, ObjectStore, StoredObject
from automl.storage.open import open_store
from automl.storage.study_log import StudyLog

T = TypeVar("T")


class Point(Protocol):
    """The gate of every storage operation of a process."""

    def around(self, name: str, key: str, call: Callable[[], T], *, sent_bytes: int = 0) -> T:
        """Carry out `call`, or don't.

        Args:
            name: the method.
            key: what it is called for.
            call: carries it out.
            sent_bytes: how much it writes.
        """


_current: Point | None = None  # of this process: Dask hands pickled stores to its threads


def install(point: Point) -> None:
    """Let the wrappers of this process go through `point`."""
    global _current
    _current = point


def _around(name: str, key: str, call: Callable[[], T], sent_bytes: int = 0) -> T:
    assert _current is not None
    return _current.around(name, key, call, sent_bytes=sent_bytes)


class ObservedRecords:
    """Records whose operations go through the process's point."""

    def __init__(self, inner: Records) -> None:
        self._inner = inner

    @property
    def uri(self) -> str:
        """The address of the records."""
        return self._inner.uri

    def get(self, key: str) -> StoredObject:
        """Return a record."""
        return _around("get", key, lambda: self._inner.get(key))

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a record that must not exist."""
        return _around(
            "put_if_absent", key, lambda: self._inner.put_if_absent(key, data), len(data)
        )

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Replace a record that must not have changed."""
        return _around(
            "put_if_match", key, lambda: self._inner.put_if_match(key, data, etag), len(data)
        )

    def now(self) -> datetime:
        """Return the time of the records' clock."""
        return _around("now", "", self._inner.now)


class ObservedStore(ObservedRecords):
    """An object store whose operations go through the process's point."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._store = inner

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return a part of an object."""
        return _around("get_range", key, lambda: self._store.get_range(key, start, size_bytes))

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        _around("put", key, lambda: self._store.put(key, data), len(data))

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        """Yield the objects below a prefix, all of them listed at once."""
        yield from _around("list", prefix, lambda: [*self._store.list(prefix, start_after)])

    def delete(self, key: str) -> None:
        """Remove an object."""
        _around("delete", key, lambda: self._store.delete(key))

    def upload(self, path: Path, key: str) -> None:
        """Write a file as an object."""
        _around("upload", key, lambda: self._store.upload(path, key), path.stat().st_size)

    def download(self, key: str, path: Path) -> None:
        """Write an object to a file."""
        _around("download", key, lambda: self._store.download(key, path))


class ObservedLog:
    """A study log whose operations go through the process's point."""

    def __init__(self, inner: StudyLog) -> None:
        self._inner = inner

    def read(self, after: int = -1) -> Sequence[tuple[int, Event]]:
        """Return the events of later versions."""
        return _around("read", str(after), lambda: self._inner.read(after))

    def append(self, events: Sequence[Event], *, expected_version: int) -> int:
        """Add events unless the log has grown."""
        return _around(
            "append",
            ",".join(event.type for event in events),
            lambda: self._inner.append(events, expected_version=expected_version),
            sum(len(event.model_dump_json()) for event in events),
        )


def observed_home(settings: Settings) -> Home:
    """Return the home of `settings`, all its operations going through the process's point."""
    store = open_store(settings.home)
    if settings.study_log is None:
        return ObjectHome(ObservedStore(store))
    from automl.storage.sql.database import Database
    from automl.storage.sql.home import SqlHome
    from automl.storage.sql.records import SqlRecords

    database = Database(settings.study_log)  # one of each worker, as outside tests
    return _ObservedSqlHome(SqlHome(store, database), SqlRecords(database, store.uri))


class _ObservedSqlHome:
    """A home with its log and leases in a database.

    Args:
        home: the home.
        records: where its leases are.
    """

    def __init__(self, home: Home, records: Records) -> None:
        self._home, self._records = home, records

    @property
    def store(self) -> ObjectStore:
        return ObservedStore(self._home.store)

    def study_log(self, study: str) -> StudyLog:
        return ObservedLog(self._home.study_log(study))

    def leases(self, study: str, ttl_s: float = TTL_S) -> Leases:
        return Leases(ObservedRecords(self._records), f"studies/{study}/leases", ttl_s)

    def study_names(self) -> list[str]:
        return self._home.study_names()
