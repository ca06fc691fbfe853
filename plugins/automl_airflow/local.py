"""A whole Airflow on this machine, from nothing, under one folder: for the demo and for tests.

`python -m automl_airflow.local up|status|down|demo`: SQLite and LocalExecutor, on free ports of
127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Self

from automl.errors import AutoMLError
from automl_airflow.pools import POOLS
from automl_airflow.rest import AirflowClient

_API_SERVER = ("api-server",)
_COMPONENTS = (_API_SERVER, ("scheduler",), ("dag-processor",))
TRIGGERER = ("triggerer",)
_START_S, _STOP_S = 120.0, 15.0
_MARK = "AUTOML_LOCAL_AIRFLOW"


class LocalAirflowError(AutoMLError):
    """The local Airflow does not do what it should."""


class ApiServers(Enum):
    """Division of the API server's work."""

    ONE = "one"
    SPLIT = "split"  # one server for people, another one for tasks


class LocalAirflow:
    """Scheduler, DAG processor and API server, all below one folder.

    Use it as a context manager; leaving it ends every process that it started.

    Args:
        home_dir: folder for the database, logs and settings; made if it is missing.
        dags_folder: folder of the DAG files.
        env: more variables for all processes, such as `AUTOML_HOME`.
        parallelism: how many tasks run at once.
        api: whether tasks have an API server of their own.
        more: further commands of `airflow` that run at the same time, such as `TRIGGERER`.

    Attributes:
        components: the commands of `airflow` that run at the same time.
        execution_port: where tasks reach the API server.
    """

    def __init__(  # noqa: PLR0913 - what an installation consists of
        self,
        home_dir: Path,
        dags_folder: Path,
        env: Mapping[str, str],
        *,
        parallelism: int = 4,
        api: ApiServers = ApiServers.ONE,
        more: Sequence[tuple[str, ...]] = (),
    ) -> None:
        self.home_dir = home_dir.resolve()
        self.port = free_port()
        self.execution_port = self.port if api is ApiServers.ONE else free_port()
        self.components = (*(_COMPONENTS if api is ApiServers.ONE else self._split()), *more)
        self.password = secrets.token_urlsafe(12)
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = AirflowClient(self.url, "admin", self.password)
        self._mark = secrets.token_hex(8)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_")},
            **self._settings(dags_folder.resolve(), parallelism),
            **env,
        }

    def _split(self) -> tuple[tuple[str, ...], ...]:
        ports = {"core": self.port, "execution": self.execution_port}
        servers = [(*_API_SERVER, "--apps", app, "--port", str(p)) for app, p in ports.items()]
        return (*servers, *(each for each in _COMPONENTS if each is not _API_SERVER))

    def _settings(self, dags_folder: Path, parallelism: int) -> dict[str, str]:
        return {
            _MARK: self._mark,
            "AIRFLOW_HOME": str(self.home_dir),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(parallelism),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": (
                f"http://127.0.0.1:{self.execution_port}/execution/"
            ),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home_dir}/airflow.db",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(free_port()),
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        }

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Make the database, start all components and wait until they are healthy.

        Raises:
            LocalAirflowError: a component ended or did not become healthy in time.
        """
        self.home_dir.mkdir(parents=True, exist_ok=True)
        passwords = self.home_dir / "simple_auth_manager_passwords.json.generated"
        write_private(passwords, f'{{"admin": "{self.password}"}}\n')
        migration = self._launch("db", "migrate")
        if migration.wait() != 0:
            raise LocalAirflowError("`airflow db migrate` failed.", self._tail("db migrate"))
        del self._processes["db migrate"]
        for component in self.components:
            self._launch(*component)
        deadline_s = time.monotonic() + _START_S
        awaited = [command[0] for command in self.components if command[0] != _API_SERVER[0]]
        while not self.client.is_healthy(awaited):
            ended = self.ended()
            if ended or time.monotonic() > deadline_s:
                name = next(iter(ended), "scheduler")
                raise LocalAirflowError(f"Airflow's {name} did not start.", self._tail(name))
            time.sleep(0.5)
        for pool, description in POOLS.items():
            self.client.make_pool(pool, 2, description)

    def ended(self) -> dict[str, int]:
        """Return the exit codes of the components that have ended by themselves, by name."""
        codes = {name: process.poll() for name, process in self._processes.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def log_file(self, name: str) -> Path:
        """Return where a component, named as in `ended`, writes its log."""
        words = [
            word for word in name.split() if not word.startswith("--") and not word.isdecimal()
        ]
        return self.home_dir / f"{'-'.join(words)}.log"

    def stop(self) -> None:
        """End every process that this object started, and what those started."""
        processes = list(self._processes.values())
        for signum in (signal.SIGTERM, signal.SIGKILL):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signum)
            deadline_s = time.monotonic() + _STOP_S
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, deadline_s - time.monotonic()))
        self._processes.clear()
        for pid in self._marked():  # tasks have sessions of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _marked(self) -> Iterator[int]:
        """Yield the processes whose environment holds this object's random mark."""
        mark = f"{_MARK}={self._mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                found = mark in (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended, or is somebody else's
                continue
            if found:
                yield int(folder.name)

    def log_tail(self, dag_id: str, run_id: str, task_id: str, lines: int = 40) -> str:
        """Return the end of the newest log of a task, as Airflow wrote it."""
        folder = self.home_dir / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}"
        logs = (folder / f"task_id={task_id}").rglob("*.log")
        newest = sorted(logs, key=lambda path: path.stat().st_mtime)[-1:]
        return "\n".join(newest[0].read_text().splitlines()[-lines:]) if newest else "(no log)"

    def _launch(self, *command: str) -> subprocess.Popen[bytes]:
        name = " ".join(command)
        with self.log_file(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home_dir,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def _tail(self, component: str) -> str:
        text = self.log_file(component).read_text(errors="replace")
        return "its log ends with:\n" + "\n".join(text.splitlines()[-25:])


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read at any moment, in one step."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.rename(path)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    from automl_airflow.demo import main

    sys.exit(main(sys.argv[1:]))
