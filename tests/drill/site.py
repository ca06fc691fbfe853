"""Site of a drill: the stack with a line to its store that can be cut, and what runs on it."""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
from automl_airflow.rest import AirflowApiError
from automl_airflow.servers.seaweed import Identity
from automl_airflow.stack import SOURCES_BUCKET, Stack
from automl_airflow.supervisor import Component, Report, State, Supervisor

from automl.domain.settings import Settings
from automl.domain.study import Study
from automl.domain.trial import TrialState
from automl.errors import AutoMLError
from automl.storage.open import open_home, open_store
from tests.digits import write_digits
from tests.drill import skewed
from tests.nights import FORM_DAG, Line, Night

SLOTS = 2
WORKERS = ("worker-default", "worker-gpu")
_DAGS = Path(__file__).resolve().parents[2] / "dags"
_TEND_S, _LOOK_S = 1.0, 5.0
_PATIENCE_S = 300.0
_PASSING = (OSError, http.client.HTTPException, AirflowApiError, AutoMLError, ValueError)

T = TypeVar("T")


def patiently(call: Callable[[], T], within_s: float = _PATIENCE_S) -> T:
    """Return what a call returns once it succeeds: what it asks may just have been hit."""
    limit_s = time.monotonic() + within_s
    while True:
        try:
            return call()
        except _PASSING:
            if time.monotonic() > limit_s:
                raise
        time.sleep(1.0)


class DrilledStack(Stack):
    """A stack whose steps reach the store by a line, and whose workers' clocks may be ahead.

    Attributes:
        line: the way to the store.
    """

    line: Line

    def _settings(self, admin: Identity, env: Mapping[str, str]) -> dict[str, str]:
        self.line = Line(self.seaweedfs.endpoint)
        return {**super()._settings(admin, env), "AWS_ENDPOINT_URL": self.line.endpoint}

    def _workers(self) -> list[Component]:
        return [self._skewable(component) for component in super()._workers()]

    def _skewable(self, component: Component) -> Component:
        script = [sys.executable, skewed.__file__, str(skew_file(self, component.name))]
        return replace(component, command=[*script, *component.command])


def skew_file(stack: Stack, worker: str) -> Path:
    """Return the file whose text shifts a worker's clock from its next start, in seconds."""
    return stack.folders.root / f"skew-{worker}"


@dataclass(frozen=True, slots=True)
class Flight:
    """A trial that was being trained: its study, number and attempt."""

    study: str
    trial: int
    attempt: int


@dataclass(slots=True)
class Site:
    """A stack that serves, and the studies on it.

    Attributes:
        stack: what serves.
        night: its Airflow and home; the home is reached by a way that nobody cuts.
        names: the studies.
        said: what the supervisor has said, with the time of each line.
        may_trigger: held by who does not want a run to begin just now.
    """

    stack: Stack
    night: Night
    names: tuple[str, ...] = ()
    said: list[tuple[float, str]] = field(default_factory=list)
    may_trigger: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        say = self.stack.supervisor.say

        def hear(line: str) -> None:
            self.said.append((time.time(), line))
            say(line)

        self.stack.supervisor.say = hear

    def report(self, component: str) -> Report:
        """Return how a component fares."""
        return next(r for r in self.stack.supervisor.reports() if r.name == component)

    def is_well(self) -> bool:
        """Return whether all components are healthy."""
        return all(each.state is State.HEALTHY for each in self.stack.supervisor.reports())

    def tree(self, component: str) -> list[psutil.Process]:
        """Return the process of a component and all that it has started."""
        try:
            master = psutil.Process(self.report(component).pid)
            return [master, *master.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def steps(self, *names: str) -> list[psutil.Process]:
        """Return the running processes of steps, of all steps if none is named."""
        found = []
        for worker in WORKERS:
            for process in self.tree(worker):
                with contextlib.suppress(psutil.Error):
                    words = process.cmdline()
                    if words[1:3] == ["-m", "automl.steps"] and (not names or words[3] in names):
                        found.append(process)
        return found

    def wait_for_step(self, *names: str, within_s: float = 90.0) -> psutil.Process | None:
        """Return a running process of one of some steps, None if none begins in time."""
        limit_s = time.monotonic() + within_s
        while not (found := self.steps(*names)):
            if time.monotonic() > limit_s:
                return None
            time.sleep(0.2)
        return found[0]

    def study(self, name: str) -> Study:
        """Return a study as its log tells it."""
        return patiently(lambda: self.night.study(name))

    def flights(self) -> list[Flight]:
        """Return the trials that are claimed."""
        return [
            Flight(name, trial.number, trial.attempt)
            for name in self.names
            for trial in self.study(name).trials
            if trial.state is TrialState.CLAIMED
        ]

    def wait_for_flights(self, within_s: float) -> list[Flight]:
        """Return the trials that are being trained, once there are any.

        Raises:
            AssertionError: none is in time.
        """
        limit_s = time.monotonic() + within_s
        while not (found := self.flights()):
            assert time.monotonic() < limit_s, f"nothing was trained for {within_s:g} s"
            time.sleep(1.0)
        return found


@contextlib.contextmanager
def serving(folder: Path, env: Mapping[str, str], names: tuple[str, ...]) -> Iterator[Site]:
    """Serve a stack until the end of the block, and tend its components as `make stack` does."""
    studies, few = folder / "studies", write_digits(folder / "few.npz", 200)
    studies.mkdir()
    own = {
        "AUTOML_SOURCES": str(folder),
        "AUTOML_STUDIES": str(studies),
        "OMP_NUM_THREADS": "1",
        **env,
    }
    stack = DrilledStack(folder / "stack", _DAGS, own, SLOTS, Supervisor())
    os.environ.update({**stack.settings, "AWS_ENDPOINT_URL": stack.seaweedfs.endpoint})
    os.environ.pop("AWS_PROFILE", None)
    try:
        with stack.line, stack, _tended(stack.supervisor):
            home = open_home(Settings.from_environment(os.environ))
            night = Night(stack.airflow, home, stack.line, few, studies)
            stack.airflow.client.wait_for_dag(FORM_DAG, 120)
            yield Site(stack, night, names)
    finally:
        stack.postgres.remove()


@contextlib.contextmanager
def _tended(supervisor: Supervisor) -> Iterator[None]:
    stopping = threading.Event()

    def every(seconds: float, call: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            while not stopping.wait(seconds):
                call()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    threads = [every(_TEND_S, supervisor.tend), every(_LOOK_S, supervisor.look)]
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def put_rows(rows: int, path: Path, key: str) -> str:
    """Store so many digits as a source of studies, and return its address."""
    data = write_digits(path, rows).read_bytes()
    patiently(lambda: open_store(f"s3://{SOURCES_BUCKET}").put(key, data))
    return f"s3://{SOURCES_BUCKET}/{key}"


def call(site: Site, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """Call Airflow's REST API, again and again while it is away."""
    return patiently(lambda: site.night.airflow.client.call(method, path, body))
