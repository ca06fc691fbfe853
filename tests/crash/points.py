"""Wrappers through which every storage operation of a process can be watched, failed or fatal."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

from automl.domain.events import Event
from automl.errors import StorageError
from automl.storage.leases import Records
from automl.storage.objects import ObjectEntry, ObjectStore, StoredObject
from automl.storage.study_log import StudyLog

T = TypeVar("T")


class Fault(StrEnum):
    """What happens at the chosen operation."""

    KILL_BEFORE = "kill_before"
    KILL_AFTER = "kill_after"
    REFUSE = "refuse"  # nothing is done, the caller sees an error
    LOSE_REPLY = "lose_reply"  # it is done, the caller sees an error


@dataclass(frozen=True, slots=True)
class Crash:
    """Which operation of a process fails, and how.

    Attributes:
        operation: its number, from 0, counted over all threads.
        fault: what happens there.
    """

    operation: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of a trace.

    Attributes:
        number: counted over all threads of the process, from 0.
        name: the method.
        key: what it was called for.
        done: whether it has been carried out.
    """

    number: int
    name: str
    key: str
    done: bool

    @property
    def is_write(self) -> bool:
        """Whether it may change what is stored."""
        return self.name not in {"get", "list", "read", "now", "download"}


class Point(Protocol):
    """What every storage operation of a process goes through."""

    def around(self, name: str, key: str, call: Callable[[], T], *, sent_bytes: int = 0) -> T:
        """Carry out `call`, or don't.

        Args:
            name: the method.
            key: what it is called for.
            call: carries it out.
            sent_bytes: how much it writes.
        """


class CrashPoint:
    """Counts the storage operations of this process, writes them down, and fails one of them.

    Args:
        trace: file that gets two lines per operation, one before it and one after.
        crash: what fails; None to only count.
    """

    def __init__(self, trace: Path, crash: Crash | None) -> None:
        self._file = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._crash = crash
        self._lock = threading.Lock()
        self._count = 0

    def around(self, name: str, key: str, call: Callable[[], T], *, sent_bytes: int = 0) -> T:
        """Carry out `call`, unless it is the chosen one."""
        with self._lock:
            number = self._count
            self._count += 1
        self._write(Operation(number, name, key, done=False))
        fault = self._crash.fault if self._crash and self._crash.operation == number else None
        if fault is Fault.KILL_BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault is Fault.REFUSE:
            raise StorageError(f"{name} of {key} was refused for a test.", "try again")
        result = call()
        self._write(Operation(number, name, key, done=True))
        if fault is Fault.KILL_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault is Fault.LOSE_REPLY:
            raise StorageError(f"The reply to {name} of {key} was lost for a test.", "try again")
        return result

    def _write(self, operation: Operation) -> None:
        line = [operation.number, operation.name, operation.key, operation.done]
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read_trace(path: Path) -> list[Operation]:
    """Return what a process has written down by now, or before it ended or was killed."""
    if not path.exists():
        return []
    lines, _, _ = path.read_text().rpartition("\n")  # the last one may be half written
    return [Operation(*json.loads(line)) for line in lines.splitlines()]


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
        return self._inner.uri

    def get(self, key: str) -> StoredObject:
        return _around("get", key, lambda: self._inner.get(key))

    def put_if_absent(self, key: str, data: bytes) -> str:
        return _around(
            "put_if_absent", key, lambda: self._inner.put_if_absent(key, data), len(data)
        )

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        return _around(
            "put_if_match", key, lambda: self._inner.put_if_match(key, data, etag), len(data)
        )

    def now(self) -> datetime:
        return _around("now", "", self._inner.now)


class ObservedStore(ObservedRecords):
    """An object store whose operations go through the process's point."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._store = inner

    def put(self, key: str, data: bytes) -> str:
        return _around("put", key, lambda: self._store.put(key, data), len(data))

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        yield from _around("list", prefix, lambda: [*self._store.list(prefix, start_after)])

    def delete(self, key: str) -> None:
        _around("delete", key, lambda: self._store.delete(key))

    def upload(self, path: Path, key: str) -> None:
        _around("upload", key, lambda: self._store.upload(path, key), path.stat().st_size)

    def download(self, key: str, path: Path) -> None:
        _around("download", key, lambda: self._store.download(key, path))


class ObservedLog:
    """A study log whose operations go through the process's point."""

    def __init__(self, inner: StudyLog) -> None:
        self._inner = inner

    def read(self, after: int = -1) -> Sequence[tuple[int, Event]]:
        return _around("read", str(after), lambda: self._inner.read(after))

    def append(self, events: Sequence[Event], *, expected_version: int) -> int:
        return _around(
            "append",
            ",".join(event.type for event in events),
            lambda: self._inner.append(events, expected_version=expected_version),
            sum(len(event.model_dump_json()) for event in events),
        )
