"""Fixtures that all tests may use."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from benchmarks.servers import PostgresServer, SeaweedServer
from tests.faulty_proxy import FaultyProxy
from tests.requirements import require


def pytest_configure() -> None:
    """Keep copies of shards from hiding what tests count and break; the tests of them set it."""
    os.environ["AUTOML_CACHE"] = "off"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose needs are not met, before any fixture is made."""
    require(item)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """A real S3 server, started by the first test that wants it."""
    server = SeaweedServer(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3_store_uri(s3_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh `s3://bucket/prefix` that boto3's own chain can use, in child processes too."""
    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in s3_server.environment.items():
        monkeypatch.setenv(variable, value)
    return f"s3://{s3_server.bucket}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL server, started by the first test that wants it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a fresh, empty database."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def faulty_s3(
    s3_server: SeaweedServer, s3_store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    """A proxy in front of the S3 server, to which `s3_store_uri` then leads."""
    assert s3_store_uri
    with FaultyProxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
