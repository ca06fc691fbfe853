"""Processes of steps, started and supervised; standard library only.

The child is `python -m automl.steps STEP`. It dies with its supervisor, obeys the time limit even
in native code, and hands back one JSON document through a pipe of its own.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from automl import errors
from automl.errors import AutoMLError, Problem
from automl.machine.labels import RESULT_FD_VARIABLE, split_labels
from automl.machine.lines import LineSplitter

GRACE_S = 5.0  # from SIGTERM to SIGKILL: enough for a checkpoint
_POLL_S = 0.2
_DRAIN_S = 5.0  # for what is left in the pipes, which a grandchild may go on filling
_CRASHED, _TIMED_OUT = "StepCrashed", "StepTimedOut"  # failures that the process did not report
# Arguments: the parent's number and the command. The signal outlives exec; the parent may have died
# before it was asked for.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class StepFailure:
    """The error with which a step ended.

    Attributes:
        type: class name in `automl.errors`, or "StepCrashed" or "StepTimedOut" if the process
            ended without a word.
        message: what happened.
        hint: what to do about it.
        problems: all single things that are wrong.
        retryable: whether the same call may succeed later.
    """

    type: str
    message: str
    hint: str = ""
    problems: tuple[Problem, ...] = ()
    retryable: bool = False

    def to_error(self) -> AutoMLError:
        """Return the exception that the step raised."""
        known = getattr(errors, self.type, AutoMLError)
        kind = known if issubclass(known, AutoMLError) else AutoMLError
        return kind(self.message, self.hint, self.problems)

    def __str__(self) -> str:
        return str(self.to_error())


@dataclass(frozen=True, slots=True)
class StepResult:
    """End of a step's process.

    Attributes:
        result: what the step returned; None unless it succeeded.
        failure: the error it reported, if it did.
        signal: the signal that killed it, if one did (SIGKILL: usually out of memory).
        timed_out: whether the time limit ended it.
        stopped: whether it was asked to stop before that.
        seconds: wall time.
    """

    result: Any
    failure: StepFailure | None
    signal: int | None
    timed_out: bool
    stopped: bool
    seconds: float

    @property
    def has_died(self) -> bool:
        """True if the process ended without a word: it has cleaned up nothing."""
        return self.signal is not None or (
            self.failure is not None and self.failure.type in {_CRASHED, _TIMED_OUT}
        )


def run_step(  # noqa: PLR0913 - what a supervised call consists of
    step: str,
    payload: Mapping[str, Any],
    *,
    env: Mapping[str, str],
    timeout_s: float | None,
    on_line: Callable[[str], None],
    stop: Callable[[], bool],
    on_label: Callable[[str], None] = lambda _: None,
    module: str = "automl.steps",
) -> StepResult:
    """Run `step` in a child process and return how it ended.

    Args:
        step: name of the step.
        payload: goes to the child's standard input as JSON, so nothing of it shows in argv.
        env: the child's whole environment.
        timeout_s: wall-clock limit. SIGTERM comes a tenth of it earlier, at most 5 s; at the limit
            the child is killed.
        on_line: gets each line of the child's output; a very long one comes in pieces.
        stop: asked several times a second; once true the child gets SIGTERM and 5 s.
        on_label: gets what the child says that it does now.
        module: the module that is run.
    """
    child, read_fd = _start([sys.executable, "-m", module, step], payload, env)
    supervision = _Supervision(child, read_fd, on_line, on_label)
    try:
        supervision.wait(timeout_s, stop)
    except BaseException:
        _terminate(child)  # Airflow's time-out and termination are no `Exception`
        raise
    finally:
        supervision.close()
    return supervision.outcome(step, timeout_s)


def _start(
    command: list[str], payload: Mapping[str, Any], env: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], int]:
    """Return the child, and where its result can be read."""
    read_fd, write_fd = os.pipe()
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(payload).encode())
            stdin.seek(0)
            return _spawn(command, stdin, env, write_fd), read_fd
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)


def bound_to_parent(command: list[str]) -> list[str]:
    """Return a command that becomes another one, which dies with this process.

    A program of its own asks the kernel for that: Python code that runs between fork and exec may
    wait for a lock that a thread of the parent held, and for ever.
    """
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


def _spawn(
    command: list[str], stdin: IO[bytes], env: Mapping[str, str], result_fd: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        bound_to_parent(command),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**env, RESULT_FD_VARIABLE: str(result_fd)},
        pass_fds=(result_fd,),
    )


def _terminate(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()


class _Supervision:
    """Reads a child's output and result, and ends it when it is time."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        result_fd: int,
        on_line: Callable[[str], None],
        on_label: Callable[[str], None],
    ) -> None:
        if child.stdout is None:
            raise ValueError("the child needs a pipe for its output")
        self._child, self._output, self._result_fd = child, child.stdout, result_fd
        self._lines, self._on_label = LineSplitter(on_line), on_label
        self._document = b""
        self._started_s = time.monotonic()
        self._timed_out = self._stopped = False
        self._selector = selectors.DefaultSelector()
        for fd in (self._output.fileno(), result_fd):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ)

    def wait(self, timeout_s: float | None, stop: Callable[[], bool]) -> None:
        """Return when the child has ended and everything that it wrote has been read."""
        limit_s = float("inf") if timeout_s is None else self._started_s + timeout_s
        notice_s = 0.0 if timeout_s is None else min(GRACE_S, timeout_s / 10)
        kill_s = limit_s
        while self._child.poll() is None:
            now_s = time.monotonic()
            asked = self._timed_out or self._stopped
            if not asked and (now_s >= limit_s - notice_s or stop()):
                self._timed_out = now_s >= limit_s - notice_s
                self._stopped = not self._timed_out
                kill_s = min(limit_s, now_s + GRACE_S)
                self._child.terminate()
            if now_s >= kill_s:
                self._timed_out = self._timed_out or now_s >= limit_s
                self._child.kill()
                self._child.wait()
            self._read(max(0.0, min(_POLL_S, kill_s - now_s)))
        drained_s = time.monotonic() + _DRAIN_S
        while self._read(0.0) and time.monotonic() < drained_s:
            pass  # a grandchild may hold the pipe open: don't wait for its end
        self._lines.close()

    def _read(self, wait_s: float) -> bool:
        """Take what is there and return whether there was anything."""
        if not self._selector.get_map():
            time.sleep(wait_s)
            return False
        anything = False
        for key, _ in self._selector.select(wait_s):
            data = os.read(key.fd, 1 << 16)
            if not data:
                self._selector.unregister(key.fd)
            elif key.fd == self._result_fd:
                labels, self._document = split_labels(self._document + data)
                for label in labels:
                    self._on_label(label)
            else:
                self._lines.feed(data)
            anything = anything or bool(data)
        return anything

    def close(self) -> None:
        """Close the pipes."""
        self._selector.close()
        self._output.close()
        os.close(self._result_fd)

    def outcome(self, step: str, timeout_s: float | None) -> StepResult:
        """Return how the child ended."""
        code = self._child.returncode
        killed_by = -code if code < 0 else None
        result, failure = None, None
        document = _parse(self._document)
        if document is not None and "error" in document:
            failure = _failure(document["error"])
        elif document is not None and code == 0:
            result = document["result"]
        elif self._timed_out:
            failure = StepFailure(
                _TIMED_OUT,
                f"Step {step} did not end within {timeout_s:g} s.",
                "raise the study's time limits, or see the log for what it was doing",
                retryable=True,
            )
        elif killed_by is None:
            failure = StepFailure(
                _CRASHED,
                f"Step {step} ended with exit code {code} and no result.",
                "the log above holds its traceback",
                retryable=True,
            )
        seconds = time.monotonic() - self._started_s
        return StepResult(result, failure, killed_by, self._timed_out, self._stopped, seconds)


def _parse(document: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(document)
    except ValueError:  # the child died while writing it, or before
        return None
    return parsed if isinstance(parsed, dict) and parsed.keys() & {"result", "error"} else None


def _failure(error: Mapping[str, Any]) -> StepFailure:
    problems = tuple(Problem(item["path"], item["message"]) for item in error["problems"])
    return StepFailure(
        error["type"], error["message"], error["hint"], problems, bool(error["retryable"])
    )
