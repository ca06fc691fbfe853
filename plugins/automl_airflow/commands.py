"""Commands that start, watch and stop an Airflow of this machine, in one of two shapes.

`up` leaves a process behind that supervises everything until `down`; its folder holds what is
known of it. A lock in the folder, which ends with the process, tells whether there is one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TextIO

from automl.errors import AutoMLError
from automl_airflow.local import TRIGGERER, LocalAirflow
from automl_airflow.private import kept_secret, write_private
from automl_airflow.stack import Stack
from automl_airflow.supervisor import Report, State, Supervisor, end_marked

_LOCK, _MARK, _LOG = "lock", "mark", "supervisor.log"
_ADDRESS, _STATUS = "address.txt", "status.json"  # while something serves
_TEND_S, _LOOK_S, _POLL_S = 1.0, 5.0, 0.2
_SILENT_S = 60.0  # a supervisor that has not written for that long hangs
_STOP_WITHIN_S = 150.0  # or it hangs: its components have less
_RELEASE_S = 2.0  # who asks for the holder of a lock holds it for a moment


class ServingError(AutoMLError):
    """Something that should serve does not."""


class Installation(Protocol):
    """Something that serves until it is stopped."""

    def start(self) -> None:
        """Start everything and wait until it is healthy."""

    def stop(self) -> None:
        """End everything."""

    @property
    def address(self) -> str:
        """Lines for people: where it serves, and how to stop it."""


Make = Callable[[Path, Path, Supervisor], Installation]


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape of Airflow.

    Attributes:
        folder: where it is kept if nothing else is said.
        target: the target of `make` that starts it.
        make: returns it, not yet started, for a folder, the DAGs' folder and a supervisor.
    """

    folder: str
    target: str
    make: Make


class _Small:
    """SQLite and LocalExecutor."""

    def __init__(self, folder: Path, dags: Path, supervisor: Supervisor) -> None:
        self._home = os.environ.get("AUTOML_HOME", str(folder.resolve() / "automl-home"))
        self._sources = os.environ.get("AUTOML_SOURCES") or near_sources()
        env = {"AUTOML_HOME": self._home, "AUTOML_SOURCES": self._sources}
        self._airflow = LocalAirflow(folder, dags, env, more=[TRIGGERER], supervisor=supervisor)
        self.start, self.stop = self._airflow.start, self._airflow.stop

    @property
    def address(self) -> str:
        return (
            f"Airflow is at {self._airflow.url}; user admin, password {self._airflow.password}\n"
            f"state is kept in {self._home}; studies may read {self._sources}; `make down` ends it"
        )


def _stack(folder: Path, dags: Path, supervisor: Supervisor) -> Stack:
    slots = os.environ.get("GPU_SLOTS")
    env = {"AUTOML_SOURCES": os.environ.get("AUTOML_SOURCES") or near_sources()}
    return Stack(folder, dags, env, int(slots) if slots else None, supervisor)


SHAPES = {
    "local": Shape("automl-local", "up", _Small),
    "stack": Shape("automl-stack", "stack", _stack),
}


def near_sources() -> str:
    """Return what studies may read on a person's own machine: where that works, and its studies."""
    folders = [Path.cwd(), Path(os.environ.get("AUTOML_STUDIES") or ".").resolve()]
    return ",".join(dict.fromkeys(map(str, folders)))


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def up(shape: str, folder: Path, dags: Path) -> None:
    """Start a process that serves until `down`, wait until it does, and say where.

    Raises:
        ServingError: it did not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address, log = folder / _ADDRESS, folder / _LOG
    if running(folder) is not None:
        if address.exists():
            status(folder, SHAPES[shape].target)
        else:
            say(f"Airflow is starting; see {log}")
        return
    address.unlink(missing_ok=True)
    options = ["--shape", shape, "--folder", str(folder), "--dags", str(dags)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "automl_airflow", "serve", *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_address(address, process, log)
    except KeyboardInterrupt:
        say("what has started is being stopped")
        process.terminate()
        process.wait()
        raise
    say(address.read_text())


def _await_address(address: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    while not address.exists():
        if process.poll() is not None:
            last = "\n".join(log.read_text().splitlines()[-30:])
            raise ServingError(f"Airflow did not start.\n{last}", f"see {log}")
        time.sleep(_POLL_S)


def serve(shape: str, folder: Path, dags: Path, stopping: threading.Event | None = None) -> None:
    """Serve in this process until it is asked to stop.

    Args:
        shape: name of the shape.
        folder: where everything is kept.
        dags: folder of the DAG files.
        stopping: asks it to stop, as a signal does by raising `KeyboardInterrupt`.

    Raises:
        AutoMLError: another process serves from the folder, or a component does not start.
    """
    with _held(folder):
        mark = kept_secret(folder / _MARK)
        left = end_marked(mark)
        if left:
            _stamped(f"{left} processes of a supervisor that was killed have been ended")
        _forget(folder)
        supervisor = Supervisor(_stamped, mark)
        installation = SHAPES[shape].make(folder, dags, supervisor)
        stopping = stopping or threading.Event()
        with contextlib.ExitStack() as ending:  # the last one first; none is left out
            ending.callback(_forget, folder)
            ending.callback(installation.stop)
            ending.callback((folder / _ADDRESS).unlink, missing_ok=True)
            ending.callback(stopping.set)
            installation.start()
            write_status(folder, supervisor)
            write_private(folder / _ADDRESS, installation.address)
            _watch(folder, supervisor, stopping)


def _forget(folder: Path) -> None:
    """Remove what tells of something that serves."""
    for name in (_ADDRESS, _STATUS):
        (folder / name).unlink(missing_ok=True)


def _stamped(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk stops nothing
        say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")


def _watch(folder: Path, supervisor: Supervisor, stopping: threading.Event) -> None:
    """Start again what has ended, and write down how all fare, until it is asked to stop."""

    def look() -> None:
        while not stopping.wait(_LOOK_S):
            supervisor.look()

    threading.Thread(target=look, daemon=True, name="look").start()
    while not stopping.wait(_TEND_S):
        supervisor.tend()
        with contextlib.suppress(OSError):  # a full disk: `status` tells that nothing is said
            write_status(folder, supervisor)


def write_status(folder: Path, supervisor: Supervisor) -> None:
    """Write down how the components fare."""
    reports = [asdict(report) for report in supervisor.reports()]
    write_private(folder / _STATUS, json.dumps(reports))


def status(folder: Path, target: str) -> None:
    """Say where it serves, and how each component fares.

    Raises:
        ServingError: it does not run, or a component is not healthy.
    """
    path = folder / _STATUS
    if running(folder) is None:
        raise ServingError(f"Nothing serves from {folder}.", f"start it with `make {target}`")
    try:
        address, written = (folder / _ADDRESS).read_text(), json.loads(path.read_text())
        silent_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        raise ServingError("It starts, or stops.", f"see {folder / _LOG}") from None
    say(address)
    reports = [Report(**report) for report in written]
    for report in reports:
        say(_line(report))
    if silent_s > _SILENT_S:
        raise ServingError(
            f"The supervisor has said nothing for {silent_s:.0f} s.", f"see {folder / _LOG}"
        )
    bad = [report for report in reports if report.state != State.HEALTHY]
    if bad:
        told = "; ".join(f"{each.name} is {each.state}: see {each.log}" for each in bad)
        raise ServingError(told, f"what has ended is started again; {folder / _LOG} tells when")


def _line(report: Report) -> str:
    again = f", started again {report.restarts} times" if report.restarts else ""
    code = "" if report.exit_code is None else f", exit code {report.exit_code}"
    return f"  {report.name:16} {report.state:9} process {report.pid}{code}{again}"


def down(folder: Path) -> None:
    """Stop what serves from a folder, and what a supervisor that was killed has left.

    Raises:
        ServingError: there is nothing.
        ComponentError: processes do not end even by force.
    """
    pid = running(folder)
    if pid is not None and not _ends(folder, pid, signal.SIGTERM, _STOP_WITHIN_S):
        say(f"process {pid} does not stop; it is killed")
        _ends(folder, pid, signal.SIGKILL, _STOP_WITHIN_S)
    mark, left = folder / _MARK, 0
    if running(folder) is None and mark.exists():  # nobody has started it again meanwhile
        left = end_marked(mark.read_text().strip())
        _forget(folder)
    if pid is None and not left:
        raise ServingError(f"Nothing runs in {folder}.", "name its folder with --folder")
    say(f"stopped: {left} processes, whose supervisor had been killed" if left else "stopped")


def _ends(folder: Path, pid: int, signum: signal.Signals, within_s: float) -> bool:
    """Send a signal to the process that serves, and return whether it ends in time."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
    limit_s = time.monotonic() + within_s
    while running(folder) == pid:
        if time.monotonic() > limit_s:
            return False
        time.sleep(_POLL_S)
    return True


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which tells who serves from it.

    Raises:
        ServingError: another process holds it.
    """
    with (folder / _LOCK).open("a+") as file:
        limit_s = time.monotonic() + _RELEASE_S
        while not _locks(file, fcntl.LOCK_EX):
            if time.monotonic() > limit_s:
                raise ServingError(f"Another process serves from {folder}.")
            time.sleep(_POLL_S)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def running(folder: Path) -> int | None:
    """Return the id of the process that serves from a folder, None if there is none."""
    try:
        with (folder / _LOCK).open() as file:
            while not _locks(file, fcntl.LOCK_SH):
                file.seek(0)
                if pid := file.read():  # it is written once the lock is held
                    return int(pid)
                time.sleep(_POLL_S)
    except FileNotFoundError:
        pass
    return None


def _locks(file: TextIO, kind: int) -> bool:
    """Lock a file until it is closed, and return whether that could be done."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
