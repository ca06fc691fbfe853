"""A database of SQLite or PostgreSQL: connections, tries, and locks."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any, Final, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    Insert,
    NullPool,
    Row,
    Select,
    Update,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from automl.errors import PreconditionFailedError
from automl.storage.sql.errors import is_passing, translate
from automl.storage.sql.tables import check_schema, have_tables, make_tables
from automl.storage.sql.url import SQLITE, parse_url, shown, without_password

PATIENCE_S = 90.0  # an outage of a minute is ridden out, as on S3
_BUSY_TIMEOUT_S = 60.0  # how long SQLite itself waits for another process to finish its write
_CONNECT_TIMEOUT_S = 10.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 2.0  # longest random pauses between tries
_TABLES_LOCK = "automl: tables"
_POSTGRESQL_OPTIONS: Final[dict[str, Any]] = {  # of libpq; those of the address win
    "application_name": "automl",
    "options": "-c statement_timeout=60s -c idle_in_transaction_session_timeout=0",
    "keepalives_idle": 10,  # a host that is gone is noticed within half a minute
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds
}
log = logging.getLogger(__name__)
T = TypeVar("T")


class Database:
    """A database, whose tables are made when it is first used and lacks them.

    An instance may be used by many threads, and after a fork: every process connects for itself.
    A pickle of it holds no password; the process that loads it has one from `PGPASSFILE`.

    Trouble that may pass is waited out, with random pauses. All methods raise StorageError for
    trouble that lasts longer, StorageAccessError for a wrong address, login or right,
    NewerSchemaError for tables of a newer version and DamagedDataError for damaged ones.

    Args:
        url: as for `automl.storage.sql.url.parse_url`.
        patience_s: how long trouble may last.

    Raises:
        ConfigError: `url` is not the address of a database.
    """

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        self._open(parse_url(url), patience_s)

    def _open(self, url: URL, patience_s: float) -> None:
        self._url, self._patience_s = url, patience_s
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._pid = 0  # of the process that the engine and its connections belong to
        self._inherited: list[Engine] = []  # kept: closing them would end their owner's sessions
        self._is_prepared = False

    def __getstate__(self) -> tuple[URL, float]:
        return without_password(self._url), self._patience_s

    def __setstate__(self, state: tuple[URL, float]) -> None:
        self._open(*state)

    @property
    def uri(self) -> str:
        """Kind, host and name of the database; holds no secrets."""
        return shown(self._url)

    def read(self, statement: Select[Any]) -> Sequence[Row[Any]]:
        """Return the rows that `statement` selects."""
        return self._persist(lambda engine: _rows(engine, statement))

    def write(self, statement: Insert | Update) -> int:
        """Make one change durably and return how many rows it changed.

        A statement whose reply is lost is repeated, so that the repetition may find its own work.

        Raises:
            PreconditionFailedError: a row with the same primary key exists.
        """
        try:
            return self._persist(lambda engine: _changed(engine, statement))
        except IntegrityError as error:
            raise PreconditionFailedError(f"The row exists in {self.uri} already.") from error

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold the lock called `name`, which one block of all processes has at a time.

        SQLite has one lock for all names, under which nothing else can be written.

        Raises:
            StorageError: the lock could not be had, or was lost while the block ran.
        """
        connection = self._persist(lambda engine: self._locked(engine, name))
        try:
            yield
            try:
                connection.commit()  # fails if the connection, and so the lock, was lost
            except SQLAlchemyError as error:
                raise translate(error, self.uri) from error
        finally:
            connection.close()

    def _persist(self, work: Callable[[Engine], T]) -> T:
        """Return what `work` returns, repeating it while the trouble may pass."""
        limit_s = time.monotonic() + self._patience_s
        longest_s = _FIRST_PAUSE_S
        while True:
            try:
                return work(self._prepared())
            except IntegrityError:
                raise
            except SQLAlchemyError as error:
                if not is_passing(error) or time.monotonic() > limit_s:
                    raise translate(error, self.uri) from error
                if longest_s == _FIRST_PAUSE_S:
                    log.warning("%s Trying again.", translate(error, self.uri).message)
            time.sleep(random.uniform(0, longest_s))  # noqa: S311 - no secret
            longest_s = min(2 * longest_s, _LAST_PAUSE_S)

    def _prepared(self) -> Engine:
        """Return this process's engine of a database that has the tables."""
        with self._lock:
            if self._engine is not None and self._pid != os.getpid():
                self._inherited.append(self._engine)
                self._engine = None
            if self._engine is None:
                self._engine, self._pid, self._is_prepared = (
                    _engine(self._url, self._patience_s),
                    os.getpid(),
                    False,
                )
                weakref.finalize(self, _close, self._engine, self._pid)
            if not self._is_prepared:
                self._prepare(self._engine)
                self._is_prepared = True
            return self._engine

    def _prepare(self, engine: Engine) -> None:
        with engine.connect() as connection:
            if have_tables(connection):
                check_schema(connection, self.uri)
                return
            if self._is_sqlite:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # the file remembers it
        connection = self._locked(engine, _TABLES_LOCK)
        try:
            make_tables(connection)
            check_schema(connection, self.uri)
            connection.commit()
        finally:
            connection.close()

    def _locked(self, engine: Engine, name: str) -> Connection:
        """Return a connection whose transaction holds the lock called `name`."""
        connection = engine.connect()
        try:
            if self._is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection = connection.execution_options(isolation_level="READ COMMITTED")
                digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
                number = int.from_bytes(digest, signed=True)
                connection.execute(select(func.pg_advisory_xact_lock(number)))
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def _is_sqlite(self) -> bool:
        return self._url.drivername == SQLITE


def _close(engine: Engine, pid: int) -> None:
    """End the sessions of an engine in the process that they belong to."""
    if os.getpid() == pid:
        engine.dispose()


def _rows(engine: Engine, statement: Executable) -> Sequence[Row[Any]]:
    with engine.connect() as connection:
        return connection.execute(statement).all()


def _changed(engine: Engine, statement: Executable) -> int:
    with engine.connect() as connection:
        # SQLAlchemy keeps the count of an INSERT on request only
        counted = connection.execution_options(preserve_rowcount=True)
        return counted.execute(statement).rowcount


def _engine(url: URL, patience_s: float) -> Engine:
    """Return an engine on which each statement is a transaction of its own."""
    if url.drivername == SQLITE:
        # No pool: a connection that is open while the process forks makes the child believe that
        # it holds the parent's locks (sqlite.org/howtocorrupt.html, section 2.6).
        engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={"timeout": min(patience_s, _BUSY_TIMEOUT_S)},
        )
        event.listen(engine, "connect", _sync_commits)
        return engine
    options = {"connect_timeout": ceil(min(patience_s, _CONNECT_TIMEOUT_S)), **_POSTGRESQL_OPTIONS}
    options = {name: value for name, value in options.items() if name not in url.query}
    return create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_pre_ping=True,
        # a worker keeps one session and needs a second one for moments, to renew a lease: 64 of
        # them fit into a server's usual 100
        pool_size=1,
        max_overflow=9,
        hide_parameters=True,
        # no prepared statements: a pooler may give every transaction another session
        connect_args={**options, "prepare_threshold": None},
    )


def _sync_commits(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA synchronous=FULL")
