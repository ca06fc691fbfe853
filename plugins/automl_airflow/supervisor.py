"""Supervision of programs that serve together: started, watched, started again, and ended."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

from automl.errors import AutoMLError

MARK = "AUTOML_LOCAL_AIRFLOW"  # steps inherit it too: their environment keeps `AUTOML_`
# Programs of Python that name themselves in the lists of processes, such as Airflow's, Celery's
# and Dask's, write over their environment, and so over the mark, where this is not set.
_KEEPS_MARK = {"SPT_NOENV": "1"}
_START_S, _STOP_S = 120.0, 15.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_STEADY_S = 60.0  # who ran for that long is started again without delay
_LOG_LINES = 25
_FIRST_LOOK_S, _LAST_LOOK_S = 0.1, 1.0  # while it starts: looks cost what starts, too
_MISSES = 2  # of checks of health, before a component that runs is called unhealthy
_GONE_S = 10.0  # until a process that was killed is gone
_POLL_S = 0.02

log = logging.getLogger(__name__)


class ComponentError(AutoMLError):
    """A component does not do what it should."""


def _yes() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Component:
    """A program that runs as long as the others.

    Attributes:
        name: what it is called in messages.
        command: its program and arguments.
        log: file that gets what it prints.
        folder: where it works.
        env: its whole environment; the supervisor adds a mark.
        is_healthy: tells whether it does its work; asked while it runs.
        stop_signal: asks it, and all of its process group, to end.
        stop_s: how long it may take to end.
        owner: user and group that it runs as, if another's.
    """

    name: str
    command: Sequence[str]
    log: Path
    folder: Path
    env: Mapping[str, str]
    is_healthy: Callable[[], bool] = _yes
    stop_signal: signal.Signals = signal.SIGTERM
    stop_s: float = _STOP_S
    owner: tuple[int, int] | None = None

    def last_words(self) -> str:
        """Return the end of the log, for a message."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "its log ends with:\n" + "\n".join(text.splitlines()[-_LOG_LINES:])


class State(StrEnum):
    """Health of a component."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # it runs, and does not do its work, or not yet
    ENDED = "ended"  # until it is started again


@dataclass(slots=True)
class _Part:
    """A component and the process that it has at present."""

    component: Component
    process: subprocess.Popen[bytes]
    started_s: float
    group: int
    restarts: int = 0
    pause_s: float = _FIRST_PAUSE_S
    again_s: float | None = None  # when to start it again
    is_healthy: bool = False
    misses: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """State of a component, as it was last seen.

    Attributes:
        name: the component.
        state: how it fares.
        pid: its process, or the one that has ended.
        restarts: how often it was started again.
        log: what it has printed.
        exit_code: of the process that has ended.
    """

    name: str
    state: State
    pid: int
    restarts: int
    log: str
    exit_code: int | None


def _silent(line: str) -> None:
    pass


@dataclass(slots=True)
class Supervisor:
    """Supervisor of some components. Its methods are called by one thread, but for `look`.

    Args:
        say: gets a line for each end and each start.
        mark: a random text in the environment of all that is started, so that `stop` finds what
            has left its process group.
    """

    say: Callable[[str], None] = _silent
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    _parts: dict[str, _Part] = field(default_factory=dict)
    _groups: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, components: Iterable[Component], within_s: float = _START_S) -> None:
        """Start components and return when all of them are healthy; they will end together too.

        Raises:
            ComponentError: one has ended, or was not healthy in time.
        """
        awaited = list(components)
        self._groups += 1
        for component in awaited:
            self._launch(component)
        deadline_s, pause_s = time.monotonic() + within_s, _FIRST_LOOK_S
        while awaited:
            ended = self.ended()
            failed = [c for c in awaited if c.name in ended]
            awaited = [c for c in awaited if not self._is_well(c.name)]
            if failed or (awaited and time.monotonic() > deadline_s):
                one = (failed or awaited)[0]
                raise ComponentError(f"{one.name} did not start.", one.last_words())
            time.sleep(pause_s if awaited else 0)
            pause_s = min(_LAST_LOOK_S, pause_s * 1.3)

    def run(self, component: Component) -> None:
        """Run a program to its end.

        Raises:
            ComponentError: it has failed.
        """
        self._launch(component)
        code = self._parts[component.name].process.wait()
        del self._parts[component.name]
        if code != 0:
            raise ComponentError(f"`{component.name}` failed.", component.last_words())

    def _launch(self, component: Component) -> None:
        part = _Part(component, self._spawn(component), time.monotonic(), self._groups)
        with self._lock:
            self._parts[component.name] = part

    def ended(self) -> dict[str, int]:
        """Return the exit codes of the components that have ended by themselves, by name."""
        codes = {name: part.process.poll() for name, part in self._parts.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def tend(self) -> None:
        """Name each component that has ended since, and start it again after a pause."""
        now_s = time.monotonic()
        for name, code in self.ended().items():
            part = self._parts[name]
            if part.again_s is None:
                self._bury(part, code, now_s)
            elif now_s >= part.again_s:
                self._start_again(part, now_s)

    def _bury(self, part: _Part, code: int, now_s: float) -> None:
        """Note an end; what is left of the process group ends as well, for it has no master."""
        _signal(part.process, signal.SIGKILL)
        if now_s - part.started_s > _STEADY_S:
            part.pause_s = _FIRST_PAUSE_S
        part.is_healthy = False
        self._put_off(part, f"has ended with exit code {code}: see {part.component.log}", now_s)

    def _start_again(self, part: _Part, now_s: float) -> None:
        try:
            process = self._spawn(part.component)
        except OSError as error:  # such as a full disk: the others go on
            self._put_off(part, f"cannot be started: {error}", now_s)
            return
        with self._lock:
            part.process, part.started_s = process, now_s
            part.restarts, part.again_s = part.restarts + 1, None
        self.say(f"{part.component.name} is started again, as process {process.pid}")

    def _put_off(self, part: _Part, why: str, now_s: float) -> None:
        """Let a start wait, longer each time."""
        part.again_s = now_s + part.pause_s
        self.say(f"{part.component.name} {why}; it is started again in {part.pause_s:.0f} s")
        part.pause_s = min(2 * part.pause_s, _LONGEST_PAUSE_S)

    def look(self) -> None:
        """Ask all components whether they are healthy; this may take seconds."""
        for name in list(self._parts):
            self._is_well(name)

    def reports(self) -> list[Report]:
        """Return what is known of each component, by the order of starting."""
        with self._lock:
            return [self._report(part) for part in self._parts.values()]

    def _report(self, part: _Part) -> Report:
        code = part.process.poll()
        state = State.ENDED
        if code is None:
            state = State.HEALTHY if part.is_healthy else State.UNHEALTHY
        file = str(part.component.log)
        return Report(part.component.name, state, part.process.pid, part.restarts, file, code)

    def stop(self) -> None:
        """End all components, those that were started last first, and what they have started.

        If it is broken off, by a signal or an error, all that is left ends by force and at once.

        Raises:
            ComponentError: processes do not end even by force.
        """
        parts = sorted(self._parts.values(), key=lambda part: -part.group)
        try:
            for _, group in itertools.groupby(parts, key=lambda part: part.group):
                _end([(part.component, part.process) for part in group])
        finally:
            for part in parts:
                _signal(part.process, signal.SIGKILL)
            with self._lock:
                self._parts.clear()
            end_marked(self.mark)
            for part in parts:
                part.process.wait(_GONE_S)

    def _is_well(self, name: str) -> bool:
        part = self._parts.get(name)
        if part is None:  # all is stopped meanwhile
            return False
        well = part.process.poll() is None and _is_healthy(part.component)
        part.misses = 0 if well else part.misses + 1
        if well:
            part.is_healthy = True
        elif part.is_healthy and part.misses >= _MISSES:
            part.is_healthy = False
            self.say(f"{name} is not healthy: see {part.component.log}")
        return well

    def _spawn(self, component: Component) -> subprocess.Popen[bytes]:
        component.log.parent.mkdir(parents=True, exist_ok=True)
        user, group = component.owner or (None, None)
        with component.log.open("ab") as output:
            return subprocess.Popen(
                component.command,
                env={**component.env, **_KEEPS_MARK, MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=component.folder,
                start_new_session=True,
                user=user,
                group=group,
            )


def _is_healthy(component: Component) -> bool:
    try:
        return component.is_healthy()
    except Exception as error:  # noqa: BLE001 - of any library that asks
        log.warning("%s cannot be asked how it is: %r", component.name, error)
        return False


def _end(running: Sequence[tuple[Component, subprocess.Popen[bytes]]]) -> None:
    """End processes and their groups at once, by force if they take long."""
    began_s = time.monotonic()
    for component, process in running:
        _signal(process, component.stop_signal)
    for component, process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, began_s + component.stop_s - time.monotonic()))
    for _, process in running:  # also what the process has left in its group
        _signal(process, signal.SIGKILL)
    for _, process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GONE_S)


def end_marked(mark: str) -> int:
    """Kill what is left of a supervisor's components, and return how many processes that were.

    What they have started ends too, even where it shows no mark. All of it is gone at the return.

    Raises:
        ComponentError: a process does not end.
    """
    killed: set[int] = set()
    limit_s = time.monotonic() + _GONE_S
    while found := _marked(mark) | set(filter(_lives, killed)):
        if time.monotonic() > limit_s:
            pids = ", ".join(map(str, sorted(found)))
            raise ComponentError(f"Processes do not end: {pids}.", "look at them with `ps`")
        for pid in found - killed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= found
        time.sleep(_POLL_S)
    return len(killed)


def _signal(process: subprocess.Popen[bytes], signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signum)


def _marked(mark: str) -> set[int]:
    """Return the processes whose environment holds a mark, and all that these have started."""
    entry = f"{MARK}={mark}".encode()
    children: dict[int, list[int]] = {}
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        parent = _parent(pid)
        if parent is None:
            continue
        children.setdefault(parent, []).append(pid)
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                found.append(pid)
    marked: set[int] = set()
    while found:
        pid = found.pop()
        if pid not in marked:
            marked.add(pid)
            found += children.get(pid, ())
    return marked - {os.getpid()}


def _parent(pid: int) -> int | None:
    """Return the parent of a process, None if it has ended, though nobody may have heard of it."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:2]
    except OSError:
        return None
    return None if state in {b"Z", b"X"} else int(parent)


def _lives(pid: int) -> bool:
    return _parent(pid) is not None


class Supervised(ABC):
    """Components that start and end together: entering the block starts them, leaving it ends all.

    What has started is ended too if another one does not start.
    """

    @abstractmethod
    def start(self) -> None:
        """Start all and wait until they are healthy."""

    @abstractmethod
    def stop(self) -> None:
        """End all."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
