"""What only a database can do to study logs and leases; SQLite and a real PostgreSQL server."""

from __future__ import annotations

import os
import pickle
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, event

from automl.domain.events import TrialOpened
from automl.errors import (
    DamagedDataError,
    NewerSchemaError,
    NotFoundError,
    StaleWriteError,
    StorageAccessError,
    StorageError,
    StorageFullError,
)
from automl.steps.settings import Settings
from automl.storage.file import FileObjectStore
from automl.storage.home import Home
from automl.storage.sql import Database
from automl.storage.sql_home import SqlHome
from tests.contention import contest
from tests.homes import settings_for
from tests.servers import POSTGRES_PASSWORD, PostgresServer

AT = datetime(2026, 1, 1, tzinfo=UTC)
STUDY = "digits"


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_for(request.param, request, tmp_path)


@pytest.fixture
def home(settings: Settings) -> Home:
    return settings.open_home()


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def ticket(n: int) -> TrialOpened:
    return TrialOpened(at=AT, n=n, run="a", worker="w")


def append(home: Home, n: int) -> int:
    return home.study_log(STUDY).append([ticket(n)], expected_version=n - 1)


def versions(home: Home) -> list[int]:
    return [version for version, _ in home.study_log(STUDY).read()]


def home_on(url: str, folder: Path, patience_s: float = 60.0) -> Home:
    return SqlHome(FileObjectStore(folder / "home"), Database(url, patience_s))


def execute(settings: Settings, statement: str) -> None:
    """Change the database behind the platform's back."""
    assert settings.study_log is not None
    if settings.study_log.startswith("sqlite"):
        with closing(sqlite3.connect(settings.study_log.removeprefix("sqlite:///"))) as file:
            file.execute(statement)
            file.commit()
        return
    with psycopg.connect(settings.study_log, autocommit=True) as server:
        server.execute(statement.encode())


@contextmanager
def listening(listener: Callable[..., None]) -> Iterator[None]:
    """Call `listener` after each statement of any engine."""
    event.listen(Engine, "after_cursor_execute", listener)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", listener)


@contextmanager
def counted() -> Iterator[list[str]]:
    """Yield the statements that are executed in the block."""
    statements: list[str] = []
    with listening(lambda *arguments: statements.append(arguments[2].split()[0])):
        yield statements


@contextmanager
def first_reply_lost(verb: str) -> Iterator[None]:
    """Let the connection break after the first statement of a kind was carried out."""
    losses = iter([True])

    def lose(connection: object, _: object, statement: str, *__: object) -> None:
        if statement.startswith(verb) and next(losses, False):
            is_sqlite = "sqlite" in repr(connection.engine.url)  # type: ignore[attr-defined]
            raise (sqlite3 if is_sqlite else psycopg).OperationalError("the connection is lost")

    with listening(lose):
        yield


class TestTables:
    @pytest.mark.parametrize("attempt", range(3))
    def test_sixteen_processes_may_find_an_empty_database(
        self, settings: Settings, attempt: int
    ) -> None:
        (winners,) = contest("append", settings, rounds=1)

        assert len(winners) == 1, attempt
        assert versions(settings.open_home()) == [0]

    def test_tables_of_a_newer_version_are_refused(self, settings: Settings) -> None:
        append(settings.open_home(), 0)
        execute(settings, "UPDATE automl_schema SET version = 2")

        for call in (settings.open_home().study_names, lambda: append(settings.open_home(), 1)):
            with pytest.raises(NewerSchemaError, match=r"schema 2, .* reads 1\. Hint: .*upgrade"):
                call()

    def test_tables_without_a_version_are_damaged(self, settings: Settings) -> None:
        append(settings.open_home(), 0)
        execute(settings, "DELETE FROM automl_schema")

        with pytest.raises(DamagedDataError, match=r"automl_schema .* restore it"):
            settings.open_home().study_names()

    def test_tables_can_be_made_by_hand_for_a_role_that_may_not(
        self, postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
    ) -> None:
        name = postgres_url.rpartition("/")[2]
        page = Path(__file__).parents[2] / "docs" / "formats" / "sql.md"
        (statements,) = re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)
        with psycopg.connect(postgres_url, autocommit=True) as server:
            server.execute(statements.encode())
        postgres_server.execute("CREATE ROLE clerk LOGIN PASSWORD 'clerk-word'")
        postgres_server.execute(
            "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO clerk", name
        )
        try:
            home = home_on(postgres_server.url(name, "clerk", "clerk-word"), tmp_path)
            assert [append(home, n) for n in range(3)] == versions(home) == [0, 1, 2]
            lease = home.leases(STUDY).acquire("7", "anna")
            assert lease is not None
            lease.renew()
            home.store.put_if_absent("key", b"data")
        finally:
            postgres_server.execute("DROP OWNED BY clerk", name)
            postgres_server.execute("DROP ROLE clerk")

    def test_homes_that_share_a_database_are_apart(self, settings: Settings) -> None:
        one = settings.open_home()
        other = Settings(settings.home + "-2", study_log=settings.study_log).open_home()
        append(one, 0)
        append(one, 1)
        lease = one.leases(STUDY).acquire("7", "anna")
        append(other, 0)

        assert (versions(one), versions(other)) == ([0, 1], [0])
        assert lease is not None
        assert other.leases(STUDY).acquire("7", "bert") is not None
        lease.renew()
        assert one.leases(STUDY).holder("7") == "anna"


class TestLog:
    def test_reads_and_appends_are_one_statement(self, home: Home) -> None:
        for n in range(120):
            append(home, n)
        log = home.study_log(STUDY)

        with counted() as cold:
            assert len(log.read()) == 120
        with counted() as warm:
            assert not log.read(after=119)
        with counted() as appending:
            append(home, 120)
        with counted() as losing, pytest.raises(StaleWriteError):
            append(home, 120)

        assert [cold, warm, appending] == [["SELECT"], ["SELECT"], ["INSERT"]]
        assert losing == ["SELECT"]  # an INSERT that fails has no end

    def test_a_version_that_does_not_follow_is_refused(self, home: Home) -> None:
        append(home, 0)

        with pytest.raises(DamagedDataError, match=r"Version 1 of the log of study digits .*gone"):
            home.study_log(STUDY).append([ticket(2)], expected_version=1)
        assert versions(home) == [0]

    def test_a_version_that_was_removed_is_named(self, settings: Settings) -> None:
        home = settings.open_home()
        for n in range(3):
            append(home, n)
        execute(settings, "DELETE FROM automl_log WHERE version = 1")

        with pytest.raises(DamagedDataError, match=r"Version 1 of the log of study digits .*gone"):
            home.study_log(STUDY).read()

    def test_an_append_whose_reply_is_lost_counts_once(self, home: Home) -> None:
        append(home, 0)
        with first_reply_lost("INSERT"):
            assert append(home, 1) == 1

        assert versions(home) == [0, 1]

    def test_writes_of_a_lease_whose_replies_are_lost_do_not_lose_it(self, home: Home) -> None:
        leases = home.leases(STUDY)
        with first_reply_lost("INSERT"):
            lease = leases.acquire("7", "anna")
        assert lease is not None
        with first_reply_lost("UPDATE"):
            lease.renew()
        lease.renew()

        assert leases.holder("7") == "anna"
        assert leases.acquire("7", "bert") is None


class TestProcesses:
    def test_a_forked_process_connects_for_itself(self, home: Home) -> None:
        append(home, 0)
        child = os.fork()
        if child == 0:
            os._exit(0 if append(home, 1) == 1 and versions(home) == [0, 1] else 1)
        _, status = os.waitpid(child, 0)

        assert status == 0
        assert append(home, 2) == 2
        assert versions(home) == [0, 1, 2]

    def test_a_pickle_holds_no_password(self, settings: Settings, tmp_path: Path) -> None:
        home = settings.open_home()
        append(home, 0)
        data = pickle.dumps(home)

        assert POSTGRES_PASSWORD.encode() not in data
        copy: Home = pickle.loads(data)  # noqa: S301
        (tmp_path / "home").mkdir(exist_ok=True)
        assert copy.store.put("key", b"data") == home.store.get("key").etag

    def test_a_pickle_finds_its_file(self, tmp_path: Path) -> None:
        home = Settings(str(tmp_path / "home"), study_log=f"sqlite:///{tmp_path}/log.db")
        append(home.open_home(), 0)

        assert versions(pickle.loads(pickle.dumps(home.open_home()))) == [0]  # noqa: S301


class TestLocks:
    def test_a_lock_is_held_by_one_at_a_time(self, settings: Settings) -> None:
        assert settings.study_log is not None
        inside: list[int] = []
        seen: list[int] = []

        def enter(number: int) -> None:
            assert settings.study_log is not None
            with Database(settings.study_log).exclusive("a"):
                inside.append(number)
                time.sleep(0.02)
                seen.append(len(inside))
                inside.remove(number)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(enter, range(16)))

        assert seen == [1] * 16

    def test_a_block_that_fails_gives_its_lock_back(self, settings: Settings) -> None:
        assert settings.study_log is not None
        database = Database(settings.study_log, patience_s=5)
        with pytest.raises(NotFoundError), database.exclusive("a"):
            raise NotFoundError("nothing there")

        with Database(settings.study_log, patience_s=5).exclusive("a"):
            pass

    def test_other_keys_are_not_held_up(self, postgres_url: str) -> None:
        database = Database(postgres_url)
        entered = threading.Event()

        def enter() -> None:
            with database.exclusive("b"):
                entered.set()

        with database.exclusive("a"):
            thread = threading.Thread(target=enter)
            thread.start()
            assert entered.wait(30)
        thread.join()

    def test_a_lock_that_was_lost_is_noticed(
        self, postgres_server: PostgresServer, postgres_url: str
    ) -> None:
        database = Database(postgres_url)

        with pytest.raises(StorageError) as caught, database.exclusive("a"):
            postgres_server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            )
        assert caught.value.retryable


class TestTrouble:
    @pytest.mark.parametrize(
        ("user", "password", "database", "reason"),
        [
            ("automl", "wrong-one", None, "password authentication failed"),
            ("nobody", "wrong-one", None, "password authentication failed"),
            ("automl", POSTGRES_PASSWORD, "missing", 'database "missing" does not exist'),
        ],
    )
    def test_a_refused_login_is_explained_at_once(
        self,
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
        self, postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
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

    def test_a_read_only_server_can_be_read(self, postgres_url: str, tmp_path: Path) -> None:
        append(home_on(postgres_url, tmp_path), 0)
        url = postgres_url + "?options=-c%20default_transaction_read_only%3Don"
        home = home_on(url, tmp_path)

        assert versions(home) == [0]
        with pytest.raises(StorageAccessError, match=r"read-only .* primary"):
            append(home, 1)

    def test_an_outage_is_ridden_out(self, own_server: PostgresServer, tmp_path: Path) -> None:
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

    def test_a_longer_outage_may_be_tried_again(
        self, own_server: PostgresServer, tmp_path: Path
    ) -> None:
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
        self, postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
    ) -> None:
        home = home_on(postgres_url, tmp_path)
        for n in range(3):
            append(home, n)
            postgres_server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'automl'"
            )

        assert versions(home) == [0, 1, 2]

    def test_a_file_that_is_locked_for_long_may_be_tried_again(self, tmp_path: Path) -> None:
        home = home_on(f"sqlite:///{tmp_path}/log.db", tmp_path, patience_s=0.3)
        append(home, 0)
        with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match=r"database is locked.* Hint") as caught:
                append(home, 1)
            other.execute("ROLLBACK")

        assert caught.value.retryable
        assert append(home, 1) == 1

    def test_a_folder_that_is_missing_is_named(self, tmp_path: Path) -> None:
        home = home_on(f"sqlite:///{tmp_path}/missing/log.db", tmp_path)

        with pytest.raises(StorageAccessError, match=r"missing/log\.db .* must exist"):
            home.study_names()

    def test_a_file_that_is_no_database_is_damaged(self, tmp_path: Path) -> None:
        (tmp_path / "log.db").write_bytes(b"not a database" * 1000)
        home = home_on(f"sqlite:///{tmp_path}/log.db", tmp_path)

        with pytest.raises(DamagedDataError, match=r"log\.db .* restore it"):
            home.study_names()

    def test_a_full_database_damages_nothing(self, tmp_path: Path) -> None:
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
