"""Points at which one storage operation of a process fails or kills it."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from automl.errors import StorageError

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
