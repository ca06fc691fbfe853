"""A whole Airflow on this machine, from nothing, under one folder: for the demo and for tests.

`python -m automl_airflow.local up|down|demo`: SQLite and LocalExecutor, on free ports of 127.0.0.1.
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
from collections.abc import Iterator, Mapping
from pathlib import Path

from automl.errors import AutoMLError
from automl_airflow.pools import POOLS
from automl_airflow.rest import AirflowClient

_COMPONENTS = ("api-server", "scheduler", "dag-processor")
_START_S, _STOP_S = 120.0, 15.0
_MARK = "AUTOML_LOCAL_AIRFLOW"


class LocalAirflowError(AutoMLError):
    """The local Airflow does not do what it should."""


class LocalAirflow:
    """Scheduler, DAG processor and API server, all below one folder.

    Use it as a context manager; leaving it ends every process that it started.

    Args:
        home_dir: folder for the database, logs and settings; made if it is missing.
        dags_folder: folder of the DAG files.
        env: more variables for all processes, such as `AUTOML_HOME`.
        parallelism: how many tasks run at once.
    """

    def __init__(
        self,
        home_dir: Path,
        dags_folder: Path,
        env: Mapping[str, str],
        *,
        parallelism: int = 4,
    ) -> None:
        self.home_dir = home_dir.resolve()
        self.port = _free_port()
        self.password = secrets.token_urlsafe(12)
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = AirflowClient(self.url, "admin", self.password)
        self._mark = secrets.token_hex(8)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_")},
            **self._settings(dags_folder.resolve(), parallelism),
            **env,
        }

    def _settings(self, dags_folder: Path, parallelism: int) -> dict[str, str]:
        return {
            _MARK: self._mark,
            "AIRFLOW_HOME": str(self.home_dir),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(parallelism),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home_dir}/airflow.db",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port()),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(_free_port()),
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        }

    def __enter__(self) -> LocalAirflow:
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
        passwords.write_text(f'{{"admin": "{self.password}"}}\n')
        passwords.chmod(0o600)
        self._launch("db", "migrate").wait()
        if self._processes.pop().returncode != 0:
            raise LocalAirflowError("`airflow db migrate` failed.", self._tail("db"))
        for component in _COMPONENTS:
            self._launch(component)
        deadline_s = time.monotonic() + _START_S
        while not self.client.is_healthy():
            ended = [
                name
                for name, process in zip(_COMPONENTS, self._processes, strict=True)
                if process.poll() is not None
            ]
            if ended or time.monotonic() > deadline_s:
                name = ended[0] if ended else "scheduler"
                raise LocalAirflowError(f"Airflow's {name} did not start.", self._tail(name))
            time.sleep(0.5)
        for pool, description in POOLS.items():
            self.client.make_pool(pool, 2, description)

    def stop(self) -> None:
        """End every process that this object started, and what those started."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signum)
            deadline_s = time.monotonic() + _STOP_S
            for process in self._processes:
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
        with (self.home_dir / f"{command[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home_dir,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _tail(self, component: str) -> str:
        text = (self.home_dir / f"{component}.log").read_text(errors="replace")
        return "its log ends with:\n" + "\n".join(text.splitlines()[-25:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    from automl_airflow.demo import main

    sys.exit(main(sys.argv[1:]))
