"""What only a database can do to study logs and leases; SQLite and a real PostgreSQL server."""

from __future__ import annotations

import os
import pickle
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from automl.domain.settings import Settings
from automl.errors import (
    DamagedDataError,
    NewerSchemaError,
    NotFoundError,
    StaleWriteError,
    StorageError,
)
from automl.storage.home import Home
from automl.storage.open import open_home
from automl.storage.sql.database import Database
from benchmarks.servers import POSTGRES_PASSWORD, PostgresServer
from tests.contention import contest
from tests.databases import (
    STUDY,
    append,
    counted,
    execute,
    first_reply_lost,
    home_on,
    ticket,
    versions,
)
from tests.homes import settings_for


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return settings_for(request.param, request, tmp_path)


@pytest.fixture
def home(settings: Settings) -> Home:
    return open_home(settings)


class TestTables:
    @pytest.mark.parametrize("attempt", range(3))
    def test_sixteen_processes_may_find_an_empty_database(
        self, settings: Settings, attempt: int
    ) -> None:
        (winners,) = contest("append", settings, rounds=1)

        assert len(winners) == 1, attempt
        assert versions(open_home(settings)) == [0]

    def test_tables_of_a_newer_version_are_refused(self, settings: Settings) -> None:
        append(open_home(settings), 0)
        execute(settings, "UPDATE automl_schema SET version = 2")

        for call in (open_home(settings).study_names, lambda: append(open_home(settings), 1)):
            with pytest.raises(NewerSchemaError, match=r"schema 2, .* reads 1\. Hint: .*upgrade"):
                call()

    def test_tables_without_a_version_are_damaged(self, settings: Settings) -> None:
        append(open_home(settings), 0)
        execute(settings, "DELETE FROM automl_schema")

        with pytest.raises(DamagedDataError, match=r"automl_schema .* restore it"):
            open_home(settings).study_names()

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
        one = open_home(settings)
        other = open_home(Settings(settings.home + "-2", study_log=settings.study_log))
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
        home = open_home(settings)
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
        home = open_home(settings)
        append(home, 0)
        data = pickle.dumps(home)

        assert POSTGRES_PASSWORD.encode() not in data
        copy: Home = pickle.loads(data)  # noqa: S301
        (tmp_path / "home").mkdir(exist_ok=True)
        copy.store.put("key", b"data")
        assert home.store.get("key").data == b"data"

    def test_a_pickle_finds_its_file(self, tmp_path: Path) -> None:
        home = Settings(str(tmp_path / "home"), study_log=f"sqlite:///{tmp_path}/log.db")
        append(open_home(home), 0)

        assert versions(pickle.loads(pickle.dumps(open_home(home)))) == [0]  # noqa: S301


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
