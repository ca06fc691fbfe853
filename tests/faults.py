"""Processes whose storage operations are interleaved one by one, refused, or cut short.

A process of the model is real code in a thread of its own, which waits before each operation on the
store until the test lets it go on. So a test decides who comes next, what becomes of the operation,
and when a process dies: nothing depends on how threads happen to be scheduled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from automl.errors import StorageError
from automl.storage.objects import ObjectEntry, ObjectStore, StoredObject

T = TypeVar("T")
_HANGS_S = 30.0


class Fault(StrEnum):
    """What becomes of one operation."""

    NONE = "none"
    REFUSE = "refuse"  # it is not done, and the caller sees an error
    LOSE_REPLY = "lose_reply"  # it is done, and the caller sees an error
    REPEAT = "repeat"  # it is done, its reply is lost, and the client repeats it by itself
    KILL_BEFORE = "kill_before"
    KILL_AFTER = "kill_after"


class Killed(BaseException):  # no `except Exception` may stop it
    """The process is no more."""


class Process:
    """A process of the model.

    Args:
        program: what it does.

    Attributes:
        error: what ended it, if it did not return.
    """

    def __init__(self, program: Callable[[], object]) -> None:
        self._program = program
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._fault, self._is_dead, self.has_ended = Fault.NONE, False, False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._await_stop()

    def advance(self, fault: Fault = Fault.NONE) -> None:
        """Let one operation happen, and return when the next is due or the process has ended."""
        assert not self.has_ended
        self._fault = fault
        self._go.release()
        self._await_stop()

    def kill(self) -> None:
        """End the process before its next operation."""
        if not self.has_ended:
            self.advance(Fault.KILL_BEFORE)
        self._thread.join()

    def around(self, call: Callable[[], T]) -> T:
        """Carry out an operation of this process when its turn has come."""
        if not self._is_dead:
            self._stopped.release()
            self._go.acquire()
        fault = self._fault
        if self._is_dead or fault is Fault.KILL_BEFORE:
            self._die()
        if fault is Fault.REFUSE:
            raise StorageError("The operation was refused for a test.", "try again")
        if fault is Fault.REPEAT:
            call()
        try:
            return call()
        finally:
            if fault is Fault.KILL_AFTER:
                self._die()
            if fault is Fault.LOSE_REPLY:
                raise StorageError("The reply was lost for a test.", "try again")

    def _die(self) -> None:
        self._is_dead = True  # clean-up code on the way out reaches the store no more
        raise Killed

    def _run(self) -> None:
        _own.process = self
        try:
            self._program()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            self.error = error
        self.has_ended = True
        self._stopped.release()

    def _await_stop(self) -> None:
        assert self._stopped.acquire(timeout=_HANGS_S), "a process of the model hangs"


_own = threading.local()  # `process`: the one that a thread belongs to


def turn(call: Callable[[], T]) -> T:
    """Carry out `call` as an operation of the present process; outside of one, at once."""
    process: Process | None = getattr(_own, "process", None)
    return call() if process is None else process.around(call)


class TurnStore:
    """An object store whose operations wait for the turn of the process that wants them."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    @property
    def uri(self) -> str:
        return self._inner.uri

    def get(self, key: str) -> StoredObject:
        return turn(lambda: self._inner.get(key))

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        return turn(lambda: self._inner.get_range(key, start, size_bytes))

    def put(self, key: str, data: bytes) -> None:
        turn(lambda: self._inner.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> str:
        return turn(lambda: self._inner.put_if_absent(key, data))

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        return turn(lambda: self._inner.put_if_match(key, data, etag))

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        yield from turn(lambda: [*self._inner.list(prefix, start_after)])

    def delete(self, key: str) -> None:
        turn(lambda: self._inner.delete(key))

    def upload(self, path: Path, key: str) -> None:
        turn(lambda: self._inner.upload(path, key))

    def download(self, key: str, path: Path) -> None:
        turn(lambda: self._inner.download(key, path))

    def now(self) -> datetime:
        return self._inner.now()
