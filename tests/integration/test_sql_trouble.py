"""Databases that refuse, are away, full, locked or damaged."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from automl.domain.events import TrialOpened
from automl.errors import (
    DamagedDataError,
    StorageAccessError,
    StorageError,
    StorageFullError,
)
from benchmarks.servers import POSTGRES_PASSWORD, PostgresServer
from tests.databases import AT, STUDY, append, home_on, versions


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with PostgresServer() as server:
        yield server


@pytest.mark.parametrize(
    ("user", "password", "database", "reason"),
    [
        ("automl", "wrong-one", None, "password authentication failed"),
        ("nobody", "wrong-one", None, "password authentication failed"),
        ("automl", POSTGRES_PASSWORD, "missing", 'database "missing" does not exist'),
    ],
)
def test_a_refused_login_is_explained_at_once(
    postgres_server: PostgresServer,
    postgres_url: str,
    tmp_path: Path,
    user: str,
    password: str,
    database: str | None,
    reason: str,
) -> None:
    name = database or postgres_url.rpartition("/")[2]
    home = home_on(postgres_server.url(name, user, password), tmp_path)

    started_s = time.monotonic()
    for call in (home.study_names, lambda: append(home, 0)):
        with pytest.raises(StorageAccessError, match=rf"{reason}.* Hint") as caught:
            call()
        assert f"127.0.0.1:{postgres_server.port}/{name}" in str(caught.value)
        assert password not in str(caught.value)
    assert time.monotonic() - started_s < 30


def test_a_role_without_rights_is_told_what_it_needs(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-word'")
    guest = home_on(postgres_server.url(name, "guest", "guest-word"), tmp_path)
    try:
        with pytest.raises(StorageAccessError, match=r"permission denied .* create tables"):
            guest.study_names()

        append(home_on(postgres_url, tmp_path), 0)
        postgres_server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest", name)
        assert versions(guest) == [0]
        with pytest.raises(StorageAccessError, match=r"permission denied .* insert and update"):
            append(guest, 1)
    finally:
        postgres_server.execute("DROP OWNED BY guest", name)
        postgres_server.execute("DROP ROLE guest")


def test_a_read_only_server_can_be_read(postgres_url: str, tmp_path: Path) -> None:
    append(home_on(postgres_url, tmp_path), 0)
    url = postgres_url + "?options=-c%20default_transaction_read_only%3Don"
    home = home_on(url, tmp_path)

    assert versions(home) == [0]
    with pytest.raises(StorageAccessError, match=r"read-only .* primary"):
        append(home, 1)


def test_an_outage_is_ridden_out(own_server: PostgresServer, tmp_path: Path) -> None:
    home = home_on(own_server.url(own_server.create_database()), tmp_path)
    append(home, 0)
    own_server.stop()
    restart = threading.Timer(2.0, own_server.start)
    restart.start()

    lease = home.leases(STUDY).acquire("7", "anna")
    append(home, 1)
    restart.join()

    assert lease is not None
    assert versions(home) == [0, 1]


def test_a_longer_outage_may_be_tried_again(own_server: PostgresServer, tmp_path: Path) -> None:
    home = home_on(own_server.url(own_server.create_database()), tmp_path, patience_s=1)
    append(home, 0)
    own_server.stop()
    try:
        with pytest.raises(StorageError, match=r"Hint: is the server up") as caught:
            append(home, 1)
    finally:
        own_server.start()

    assert caught.value.retryable
    assert str(own_server.port) in str(caught.value)
    assert own_server.password not in str(caught.value)
    assert append(home, 1) == 1


def test_sessions_that_the_server_ends_are_replaced(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    home = home_on(postgres_url, tmp_path)
    for n in range(3):
        append(home, n)
        postgres_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'automl'"
        )

    assert versions(home) == [0, 1, 2]


def test_a_file_that_is_locked_for_long_may_be_tried_again(tmp_path: Path) -> None:
    home = home_on(f"sqlite:///{tmp_path}/log.db", tmp_path, patience_s=0.3)
    append(home, 0)
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match=r"database is locked.* Hint") as caught:
            append(home, 1)
        other.execute("ROLLBACK")

    assert caught.value.retryable
    assert append(home, 1) == 1


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    home = home_on(f"sqlite:///{tmp_path}/missing/log.db", tmp_path)

    with pytest.raises(StorageAccessError, match=r"missing/log\.db .* must exist"):
        home.study_names()


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"not a database" * 1000)
    home = home_on(f"sqlite:///{tmp_path}/log.db", tmp_path)

    with pytest.raises(DamagedDataError, match=r"log\.db .* restore it"):
        home.study_names()


def test_a_full_database_damages_nothing(tmp_path: Path) -> None:
    home = home_on(f"sqlite:///{tmp_path}/log.db", tmp_path)
    append(home, 0)
    large = TrialOpened(at=AT, n=1, run="a", worker="w" * 500_000)

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 50")

    event.listen(Engine, "connect", limit)
    try:
        started_s = time.monotonic()
        with pytest.raises(StorageFullError, match="make room on the database's disk"):
            home.study_log(STUDY).append([large], expected_version=0)
        assert time.monotonic() - started_s < 30
    finally:
        event.remove(Engine, "connect", limit)

    assert home.study_log(STUDY).append([large], expected_version=0) == 1
    assert versions(home) == [0, 1]
