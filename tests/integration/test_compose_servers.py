"""Servers of docker/compose.yaml, as their commands and secrets say; wheels have the programs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
import yaml
from automl_airflow.ports import Ports
from automl_airflow.servers.postgres import PostgresServer
from automl_airflow.servers.seaweed import S3Server
from automl_airflow.servers.valkey import ValkeyServer
from automl_airflow.supervisor import Component, Supervisor

from tests.image.backing import initialize
from tests.image.compose import COMPOSE, resolved

DOCKER = COMPOSE.parent


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    maker = tmp_path / "make-secrets"
    maker.write_text((DOCKER / "make-secrets").read_text())
    maker.chmod(0o755)
    subprocess.run([str(maker)], check=True, capture_output=True)
    return tmp_path / "secrets"


def words(service: str, secrets: Path) -> list[str]:
    """Return the command of a service, with the secrets where they are here."""
    document: dict[str, Any] = yaml.safe_load(resolved(COMPOSE.read_text(), {}))
    command = document["services"][service]["command"]
    return [str(word).replace("/run/secrets", str(secrets)) for word in command]


def serving(like: Component, command: Sequence[str]) -> Supervisor:
    """Start what a server's component would, with another command, and wait until it serves."""
    supervisor = Supervisor()
    program = like.command[0]
    part = Component(
        like.name, [program, *command], like.log, like.folder, dict(os.environ), like.is_healthy,
        stop_signal=signal.SIGKILL,
    )  # fmt: skip
    supervisor.start([part], 30)
    return supervisor


def test_valkey_takes_its_secret_configuration(secrets: Path, tmp_path: Path) -> None:
    password = (secrets / "valkey_password").read_text()
    server = ValkeyServer(tmp_path / "valkey", password)
    like = server.component()
    program, path = words("valkey", secrets)
    config = tmp_path / "config"
    config.write_text(Path(path).read_text().replace("dir /data", f"dir {like.folder}"))

    supervisor = serving(like, [str(config), "--port", str(server.port)])
    supervisor.stop()

    assert program == Path(like.command[0]).name
    assert (like.folder / "appendonlydir").is_dir()  # what is queued survives a restart


def test_seaweedfs_serves_s3_to_the_identity_of_its_secret(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = Ports()
    server = S3Server(tmp_path / "seaweedfs", [], [], ports)
    like = server.component()
    data = tmp_path / "seaweedfs" / "data"
    command = [
        word.replace("-dir=/data", f"-dir={data}")
        .replace("=seaweedfs", "=127.0.0.1")
        .replace("=0.0.0.0", "=127.0.0.1")
        for word in words("seaweedfs", secrets)
    ]
    mine = server.endpoint.rpartition(":")[2]
    others = [f"-{part}.port={ports.take()}" for part in ("master", "volume", "filer")]

    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    supervisor = serving(like, [*command, f"-s3.port={mine}", *others])
    try:
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(secrets / "aws_credentials"))
        client = boto3.Session(region_name="us-east-1").client("s3", endpoint_url=server.endpoint)
        for bucket in ("automl", "another"):  # each has volumes of its own
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="a", Body=b"a")
        assert client.get_object(Bucket="automl", Key="a")["Body"].read() == b"a"
        client.close()
    finally:
        supervisor.stop()


def test_users_of_study_logs_and_results_reach_their_databases_alone(
    secrets: Path, tmp_path: Path
) -> None:
    with PostgresServer() as server:
        initialize(server, (secrets / "postgres_password").read_text(), secrets)

        def reaches(user: str, secret: str, database: str) -> bool:
            password = (secrets / secret).read_text()
            try:
                psycopg.connect(server.url(database, user, password)).close()
            except psycopg.OperationalError as error:
                assert "permission denied for database" in str(error)  # noqa: PT017
                return False
            return True

        assert reaches("studies", "study_log_password", "studies")
        assert reaches("celery", "celery_results_password", "celery")
        assert reaches("airflow", "postgres_password", "airflow")
        assert not reaches("studies", "study_log_password", "airflow")
        assert not reaches("studies", "study_log_password", "celery")
        assert not reaches("celery", "celery_results_password", "airflow")
        assert not reaches("celery", "celery_results_password", "studies")
