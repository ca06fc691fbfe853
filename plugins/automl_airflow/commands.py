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
from typing import NoReturn, Protocol

from automl.errors import AutoMLError
from automl_airflow.local import TRIGGERER, LocalAirflow
from automl_airflow.private import kept_secret, write_private
from automl_airflow.stack import Stack
from automl_airflow.supervisor import Report, State, Supervisor, end_marked

_LOCK, _ADDRESS, _STATUS, _LOG = "lock", "address.txt", "status.json", "supervisor.log"
_TEND_S, _LOOK_S, _POLL_S = 1.0, 5.0, 0.2
_SILENT_S = 60.0  # a supervisor that has not written for that long hangs


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
    while not address.exists():
        if process.poll() is not None:
            last = "\n".join(log.read_text().splitlines()[-30:])
            raise ServingError(f"Airflow did not start.\n{last}", f"see {log}")
        time.sleep(_POLL_S)
    say(address.read_text())


def serve(shape: str, folder: Path, dags: Path) -> None:
    """Serve in this process until it is asked to stop.

    Raises:
        AutoMLError: another process serves from the folder, or a component does not start.
    """
    with _held(folder):
        for stale in (_ADDRESS, _STATUS):
            (folder / stale).unlink(missing_ok=True)
        mark = kept_secret(folder / "mark")
        end_marked(mark)  # of a supervisor that was killed
        supervisor = Supervisor(_stamped, mark)
        installation = SHAPES[shape].make(folder, dags, supervisor)
        stopping = threading.Event()
        try:
            installation.start()
            write_status(folder, supervisor)
            write_private(folder / _ADDRESS, installation.address)
            _watch(folder, supervisor, stopping)
        finally:
            stopping.set()
            (folder / _ADDRESS).unlink(missing_ok=True)
            installation.stop()
            (folder / _STATUS).unlink(missing_ok=True)


def _stamped(line: str) -> None:
    say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")


def _watch(folder: Path, supervisor: Supervisor, stopping: threading.Event) -> NoReturn:
    """Start again what has ended, and write down how all fare, until a signal."""

    def look() -> None:
        while not stopping.wait(_LOOK_S):
            supervisor.look()

    threading.Thread(target=look, daemon=True, name="look").start()
    while True:
        supervisor.tend()
        write_status(folder, supervisor)
        time.sleep(_TEND_S)


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
    if not (folder / _ADDRESS).exists():
        raise ServingError("It starts, or stops.", f"see {folder / _LOG}")
    say((folder / _ADDRESS).read_text())
    reports = [Report(**report) for report in json.loads(path.read_text())]
    for report in reports:
        say(_line(report))
    silent_s = time.time() - path.stat().st_mtime
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
    """Stop what serves from a folder, or what a supervisor that was killed has left.

    Raises:
        ServingError: there is nothing.
    """
    pid = running(folder)
    if pid is None:
        mark = folder / "mark"
        left = end_marked(mark.read_text().strip()) if mark.exists() else 0
        if not left:
            raise ServingError(f"Nothing runs in {folder}.", "name its folder with --folder")
        say(f"stopped: {left} processes, whose supervisor had been killed")
        return
    os.kill(pid, signal.SIGTERM)
    while running(folder) is not None:
        time.sleep(_POLL_S)
    say("stopped")


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which tells who serves from it.

    Raises:
        ServingError: another process holds it.
    """
    with (folder / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServingError(f"Another process serves from {folder}.") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def running(folder: Path) -> int | None:
    """Return the id of the process that serves from a folder, None if there is none."""
    try:
        with (folder / _LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    return None
