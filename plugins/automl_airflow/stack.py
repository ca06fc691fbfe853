"""Production's shape on one machine, without root or containers.

PostgreSQL keeps Airflow's state, Celery's results and the study logs; Valkey takes what is queued
to the workers; SeaweedFS has the home and a bucket for sources; Dask prepares. Every program is of
`pyproject.toml`'s extra `stack`, serves on 127.0.0.1 alone, and prints into one folder of logs.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from automl.machine.gpus.host import find_gpus
from automl.steps.specs import Pool
from automl_airflow import celery_workers
from automl_airflow.celery_workers import CeleryWorkers
from automl_airflow.dask_cluster import DaskCluster
from automl_airflow.local import TRIGGERER, LocalAirflow
from automl_airflow.pools import NAMES
from automl_airflow.ports import Ports
from automl_airflow.private import kept_secret, private_folder, write_private
from automl_airflow.servers.postgres import PostgresServer
from automl_airflow.servers.seaweed import REGION, Identity, S3Server
from automl_airflow.servers.server import Server
from automl_airflow.servers.valkey import ValkeyServer
from automl_airflow.supervisor import Component, Supervised, Supervisor

HOME_BUCKET, SOURCES_BUCKET = "automl-home", "automl-sources"
AIRFLOW_DATABASE, STUDIES_DATABASE = "airflow", "studies"
DEFAULT_QUEUE, GPU_QUEUE = "default", "gpu"
_SLOTS_WITHOUT_GPU = 2
_DEFAULT_SLOTS = 2
_WORKER_STOP_S = 40.0  # a step gets five seconds to checkpoint, and Airflow some to hear of it
_LOST_AFTER_S = 60
_API_TRIES, _API_WAIT_S = 20, 5  # some 50 s, as waits are drawn from up to the longest


@dataclass(frozen=True, slots=True)
class StackFolders:
    """Places of a stack.

    Attributes:
        root: all of it.
        database: of PostgreSQL, which does not run as root.
    """

    root: Path
    database: Path

    @classmethod
    def of(cls, root: Path) -> StackFolders:
        """Return the places of the stack under a folder."""
        root = root.resolve()
        database = root / "postgres"
        if os.geteuid() == 0 and not _is_open_to_all(root):
            name = "-".join(("automl-stack", *root.parts[1:]))
            database = Path(tempfile.gettempdir()) / name
        return cls(root, database)

    @property
    def logs(self) -> Path:
        """Folder of what all components print."""
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        """Private files."""
        return self.root / "secrets"


def _is_open_to_all(folder: Path) -> bool:
    """Return whether everybody may pass through a folder and those above it."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return all(each.stat().st_mode & 0o001 for each in (there, *there.parents))


class Stack(Supervised):
    """PostgreSQL, Valkey, SeaweedFS, Dask, Airflow and its Celery workers, all below one folder.

    Args:
        folder: for data, settings, secrets and logs; data of before is used again.
        dags: folder of the DAG files.
        env: more variables for Airflow, its workers and Dask.
        gpu_slots: how many tasks the GPU worker runs at once, and the slots of its pool; None: one
            for each GPU, or two where there is none.
        supervisor: runs the components.

    Attributes:
        airflow: its Airflow.
        settings: variables with which `automl` finds its home, log and sources.
    """

    def __init__(
        self,
        folder: Path,
        dags: Path,
        env: Mapping[str, str],
        gpu_slots: int | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.folders = StackFolders.of(folder)
        self.supervisor = supervisor or Supervisor()
        self.gpu_slots = gpu_slots or len(find_gpus(os.environ)) or _SLOTS_WITHOUT_GPU
        private_folder(self.folders.root / "airflow")
        self._secrets = private_folder(self.folders.secrets)
        ports = Ports()
        logs = self.folders.logs
        self.postgres = PostgresServer(
            self.folders.database, self._secret("postgres"), ports, logs / "postgres.log"
        )
        self.valkey = ValkeyServer(
            self.folders.root / "valkey", self._secret("valkey"), ports, logs / "valkey.log"
        )
        admin = Identity("automl", "automl", self._secret("s3"))
        self.seaweedfs = S3Server(
            self.folders.root / "seaweedfs",
            [admin],
            [HOME_BUCKET, SOURCES_BUCKET],
            ports,
            logs / "seaweedfs.log",
        )
        self.dask = DaskCluster(self.folders.root / "dask", logs, ports)
        self.settings = self._settings(admin, env)
        self.airflow = self._airflow(dags, env, ports)

    def _airflow(self, dags: Path, env: Mapping[str, str], ports: Ports) -> LocalAirflow:
        return LocalAirflow(
            self.folders.root / "airflow",
            dags,
            {**self._airflow_settings(), **env, **self.settings},
            parallelism=32,
            more=[TRIGGERER],
            slots={NAMES[Pool.GPU]: self.gpu_slots, NAMES[Pool.CPU]: _DEFAULT_SLOTS},
            supervisor=self.supervisor,
            ports=ports,
            logs=self.folders.logs,
        )

    @property
    def servers(self) -> tuple[Server, ...]:
        """The servers that keep state."""
        return self.postgres, self.valkey, self.seaweedfs

    def _secret(self, name: str) -> str:
        return kept_secret(self._secrets / name)

    def _settings(self, admin: Identity, env: Mapping[str, str]) -> dict[str, str]:
        """Return where steps find everything; secrets are in files that it names."""
        log = self._secrets / "study-log"
        write_private(log, f"{self.postgres.url(STUDIES_DATABASE)}\n")
        credentials = self._secrets / "aws-credentials"
        keys = f"aws_access_key_id = {admin.access_key}\naws_secret_access_key = {admin.secret_key}"
        write_private(credentials, f"[default]\n{keys}\n")
        near = env.get("AUTOML_SOURCES") or str(Path.cwd())
        return {
            "AUTOML_HOME": f"s3://{HOME_BUCKET}/home",
            "AUTOML_SOURCES": f"{near},s3://{SOURCES_BUCKET}",
            "AUTOML_STUDY_LOG_FILE": str(log),
            "AWS_ENDPOINT_URL": self.seaweedfs.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
            "AWS_CONFIG_FILE": str(self._secrets / "no-aws-config"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "DASK_SCHEDULER_ADDRESS": self.dask.address,
        }

    def _airflow_settings(self) -> dict[str, str]:
        """Return Airflow's settings; those that are secret name the file that has them."""
        database = self.postgres.url(AIRFLOW_DATABASE)
        secrets = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.replace("://", "+psycopg2://", 1),
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
            "AIRFLOW__CELERY__BROKER_URL": self.valkey.url,
            "AIRFLOW__CORE__FERNET_KEY": f"{kept_secret(self._secrets / 'fernet', 32)}=",
            "AIRFLOW__API__SECRET_KEY": self._secret("api"),
            # tasks that were queued before a restart show a token that this has signed
            "AIRFLOW__API_AUTH__JWT_SECRET": kept_secret(self._secrets / "jwt", 64),
        }
        return {
            **{f"{name}_CMD": self._reading(name, value) for name, value in secrets.items()},
            **celery_workers.SETTINGS,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__OPERATORS__DEFAULT_QUEUE": DEFAULT_QUEUE,
            # workers are on this machine: one that is lost is noticed soon
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(_LOST_AFTER_S),
            # a task tells the API server of its end for as long as that is started again
            "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": str(_API_TRIES),
            "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": str(_API_WAIT_S),
        }

    def _reading(self, name: str, value: str) -> str:
        """Keep a secret in a private file, and return the command that prints it."""
        path = self._secrets / name.lower()
        write_private(path, value)
        return shlex.join(["cat", str(path)])

    def start(self) -> None:
        """Start everything and wait until it is healthy.

        Raises:
            ComponentError: a component ended or did not become healthy in time.
        """
        components = [server.component() for server in self.servers]
        self.supervisor.start([*components, *self.dask.components(self._env())])
        self.seaweedfs.furnish()
        for database in (AIRFLOW_DATABASE, STUDIES_DATABASE):
            self.postgres.create_database(database)
        self.airflow.start()
        self.supervisor.start(self._workers())
        write_private(self.folders.root / "env.sh", self._exports())

    def _env(self) -> dict[str, str]:
        """Return the environment of what is not Airflow's: without its secrets."""
        return {k: v for k, v in self.airflow.env.items() if not k.startswith("AIRFLOW")}

    def _workers(self) -> list[Component]:
        workers = CeleryWorkers(self.airflow, self.valkey.url, _WORKER_STOP_S)
        return [
            workers.component(DEFAULT_QUEUE, _DEFAULT_SLOTS),
            workers.component(GPU_QUEUE, self.gpu_slots),
        ]

    def _exports(self) -> str:
        """Return what a shell reads to use `automl` and `airflow` with this stack."""
        airflow = {k: v for k, v in self.airflow.env.items() if k.startswith("AIRFLOW")}
        settings = {**airflow, **self.settings}
        lines = (f"export {name}={shlex.quote(value)}" for name, value in settings.items())
        return "\n".join([*lines, ""])

    def stop(self) -> None:
        """End every process: workers first, while Airflow still hears what becomes of tasks."""
        self.supervisor.stop()

    @property
    def address(self) -> str:
        """Lines for people: where it serves, and how to stop it."""
        airflow, root, bin_folder = self.airflow, self.folders.root, Path(sys.executable).parent
        return (
            f"Airflow is at {airflow.url}; user admin, password {airflow.password}\n"
            f"the GPU worker has {self.gpu_slots} slots; state is kept in {root}"
            f"{'' if self.folders.database.is_relative_to(root) else f', {self.folders.database}'}"
            f"; studies may read {self.settings['AUTOML_SOURCES']}\n"
            f"logs are in {self.folders.logs}; `source {root}/env.sh` makes "
            f"{bin_folder}/automl and airflow use them; `make stack-down` ends it"
        )
