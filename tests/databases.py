"""Homes in databases for tests: short cuts, and ways to meddle with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from sqlalchemy import Connection, Engine, event

from automl.domain.events import TrialOpened
from automl.domain.settings import Settings
from automl.storage.file import FileObjectStore
from automl.storage.home import Home
from automl.storage.sql.database import PATIENCE_S, Database
from automl.storage.sql.home import SqlHome

AT = datetime(2026, 1, 1, tzinfo=UTC)
STUDY = "digits"


def ticket(n: int) -> TrialOpened:
    return TrialOpened(at=AT, n=n, run="a", worker="w")


def append(home: Home, n: int) -> int:
    return home.study_log(STUDY).append([ticket(n)], expected_version=n - 1)


def versions(home: Home) -> list[int]:
    return [version for version, _ in home.study_log(STUDY).read()]


def home_on(url: str, folder: Path, patience_s: float = PATIENCE_S) -> Home:
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

    def lose(connection: Connection, _: object, statement: str, *__: object) -> None:
        if statement.startswith(verb) and next(losses, False):
            is_sqlite = "sqlite" in repr(connection.engine.url)
            raise (sqlite3 if is_sqlite else psycopg).OperationalError("the connection is lost")

    with listening(lose):
        yield
