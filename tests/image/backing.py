"""PostgreSQL, Valkey and SeaweedFS for the services of the image: wheels, instead of images.

They are the servers of `make stack`, at the addresses and with the secrets that docker/ gives them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
from automl_airflow.ports import Ports
from automl_airflow.servers.postgres import PostgresServer, program
from automl_airflow.servers.seaweed import Identity, S3Server
from automl_airflow.servers.valkey import ValkeyServer
from psycopg.sql import SQL, Literal

from tests.image.commands import run

INIT = Path(__file__).parents[2] / "docker/postgres-init.sh"
USER = DATABASE = "airflow"  # as the compose file says
POSTGRES, VALKEY, S3 = 5432, 6379, 8333


class _Ports(Ports):
    """Ports of which the first is given."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self._first: int | None = first

    def take(self) -> int:
        port, self._first = self._first, None
        return super().take() if port is None else port


@contextlib.contextmanager
def backing(folder: Path, secrets: Path) -> Iterator[None]:
    """Run the servers on their own ports of 127.0.0.1, with what docker/ gives them."""
    password = (secrets / "postgres_password").read_text()
    (identity,) = json.loads((secrets / "s3_config").read_text())["identities"]
    keys = identity["credentials"][0]
    admin = Identity("automl", keys["accessKey"], keys["secretKey"], identity["actions"])
    valkey_password = (secrets / "valkey_password").read_text()
    with contextlib.ExitStack() as stack:
        postgres = PostgresServer(folder / "postgres", ports=_Ports(POSTGRES))
        stack.enter_context(postgres)
        initialize(postgres, password, secrets)
        stack.enter_context(ValkeyServer(folder / "valkey", valkey_password, _Ports(VALKEY)))
        stack.enter_context(S3Server(folder / "seaweedfs", [admin], [], _Ports(S3)))
        yield


def initialize(postgres: PostgresServer, password: str, secrets: Path) -> None:
    """Make of a server what the image of PostgreSQL makes of it at its first start.

    Args:
        postgres: the server.
        password: of the user that the compose file names.
        secrets: the folder of the secrets, which `docker/postgres-init.sh` reads.

    Raises:
        ImageTestError: the script has failed.
    """
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(
            SQL("CREATE ROLE airflow SUPERUSER LOGIN PASSWORD {}").format(Literal(password))
        )
        connection.execute("CREATE DATABASE airflow OWNER airflow")
    env = {
        **os.environ,
        "PATH": f"{Path(program('psql')).parent}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "PGPASSWORD": password,
        "POSTGRES_USER": USER,
    }
    script = secrets.parent / "postgres-init.sh"
    script.write_text(INIT.read_text().replace("/run/secrets", str(secrets)))
    run(["bash", script], env=env)
