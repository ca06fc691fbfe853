"""A whole Airflow on this machine, from nothing, under one folder, on free ports of 127.0.0.1.

Alone it has SQLite and LocalExecutor, for `make up`, the demo and tests; `stack.py` gives it the
servers of production.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from automl_airflow.pools import POOLS
from automl_airflow.ports import Ports
from automl_airflow.private import write_private
from automl_airflow.rest import AirflowClient
from automl_airflow.supervisor import Component, Supervised, Supervisor

_API_SERVER = ("api-server",)
_COMPONENTS = (_API_SERVER, ("scheduler",), ("dag-processor",))
TRIGGERER = ("triggerer",)
_SLOTS = 2  # of each pool


class ApiServers(Enum):
    """Division of the API server's work."""

    ONE = "one"
    SPLIT = "split"  # one server for people, another one for tasks


class LocalAirflow(Supervised):
    """Scheduler, DAG processor and API server, all below one folder.

    Use it as a context manager; leaving it ends every process that it started.

    Args:
        home_dir: folder for the database, logs and settings; made if it is missing.
        dags_folder: folder of the DAG files.
        env: more variables for all processes, such as `AUTOML_HOME`.
        parallelism: how many tasks run at once.
        api: whether tasks have an API server of their own.
        more: further commands of `airflow` that run at the same time, such as `TRIGGERER`.
        slots: of pools; those that are not named have two.
        supervisor: runs the components; None: one of its own.
        ports: gives the ports; None: a source of its own.
        logs: folder of what the components print; None: `home_dir`.

    Attributes:
        components: the commands of `airflow` that run at the same time.
        execution_port: where tasks reach the API server.
        ports: gives its ports.
        logs: folder of what the components print.
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
        slots: Mapping[str, int] = MappingProxyType({}),
        supervisor: Supervisor | None = None,
        ports: Ports | None = None,
        logs: Path | None = None,
    ) -> None:
        self.home_dir = home_dir.resolve()
        self.ports = ports or Ports()
        self.port = self.ports.take()
        self.execution_port = self.port if api is ApiServers.ONE else self.ports.take()
        self.components = (*(_COMPONENTS if api is ApiServers.ONE else self._split()), *more)
        self.password = secrets.token_urlsafe(12)
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = AirflowClient(self.url, "admin", self.password)
        self.supervisor = supervisor or Supervisor()
        self._slots = slots
        self.logs = logs or self.home_dir
        settings = self._settings(dags_folder.resolve(), parallelism)
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_")},
            **{k: v for k, v in settings.items() if f"{k}_CMD" not in env},
            **env,
        }

    def _split(self) -> tuple[tuple[str, ...], ...]:
        ports = {"core": self.port, "execution": self.execution_port}
        servers = [(*_API_SERVER, "--apps", app, "--port", str(p)) for app, p in ports.items()]
        return (*servers, *(each for each in _COMPONENTS if each is not _API_SERVER))

    def _settings(self, dags_folder: Path, parallelism: int) -> dict[str, str]:
        return {
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
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self.ports.take()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self.ports.take()),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(self.ports.take()),
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        }

    def start(self) -> None:
        """Make the database, start all components and wait until they are healthy.

        Raises:
            ComponentError: a component ended or did not become healthy in time.
        """
        self.home_dir.mkdir(parents=True, exist_ok=True)
        passwords = self.home_dir / "simple_auth_manager_passwords.json.generated"
        write_private(passwords, f'{{"admin": "{self.password}"}}\n')
        self.supervisor.run(self.component("db", "migrate"))
        self.supervisor.start(self.component(*command) for command in self.components)
        for pool, description in POOLS.items():
            self.client.make_pool(pool, self._slots.get(pool, _SLOTS), description)

    @property
    def env(self) -> Mapping[str, str]:
        """Environment of all its processes."""
        return MappingProxyType(self._env)

    def component(self, *command: str) -> Component:
        """Return what runs a command of `airflow`."""
        part = command[0].replace("-", "_")
        is_asked = part in {"scheduler", "dag_processor", "triggerer"}
        return Component(
            " ".join(command),
            [sys.executable, "-m", "airflow", *command],
            self.log_file(" ".join(command)),
            self.home_dir,
            self._env,
            lambda: self.client.is_healthy([part] if is_asked else []),
        )

    def ended(self) -> dict[str, int]:
        """Return the exit codes of the components that have ended by themselves, by name."""
        return self.supervisor.ended()

    def log_file(self, name: str) -> Path:
        """Return where a component, named as in `ended`, writes its log."""
        words = [
            word for word in name.split() if not word.startswith("--") and not word.isdecimal()
        ]
        return self.logs / f"{'-'.join(words)}.log"

    def stop(self) -> None:
        """End every process that this object started, and what those started."""
        self.supervisor.stop()

    def log_tail(self, dag_id: str, run_id: str, task_id: str, lines: int = 40) -> str:
        """Return the end of the newest log of a task, as Airflow wrote it."""
        folder = self.home_dir / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}"
        logs = (folder / f"task_id={task_id}").rglob("*.log")
        newest = sorted(logs, key=lambda path: path.stat().st_mtime)[-1:]
        return "\n".join(newest[0].read_text().splitlines()[-lines:]) if newest else "(no log)"
