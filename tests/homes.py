"""Homes of every kind for tests, with a way to damage what they store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, delete, insert

from automl.domain.events import SCHEMA
from automl.domain.settings import Settings
from automl.storage.file import FileObjectStore
from automl.storage.home import Home, ObjectHome
from automl.storage.leases import Records
from automl.storage.memory import MemoryObjectStore
from automl.storage.open import open_home
from automl.storage.sql.database import Database
from automl.storage.sql.home import SqlHome
from automl.storage.sql.records import SqlRecords
from automl.storage.sql.tables import LOG, DatabaseNow
from automl.storage.sql.url import parse_url

SHARED_KINDS = ("file", "sqlite", "postgres", "s3")  # processes can share them
KINDS = ("memory", *SHARED_KINDS)


def use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `home` the platform's only setting in this process and its children, and return it."""
    for name in [name for name in os.environ if name.startswith("AUTOML_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUTOML_HOME", str(home))
    return home


class IgnoringFileStore(FileObjectStore):
    """A folder that ignores the conditions of conditional writes, as some servers do."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        self.put(key, data)
        return self.get(key).etag

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        return self.put_if_absent(key, data)


class IgnoringStore(MemoryObjectStore):
    """Memory that overwrites what exists already, whatever the condition."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        self.put(key, data)
        return self.get(key).etag


def open_lax_home(settings: Settings) -> Home:
    """Return the home; where there is a database, nothing but it minds conditions."""
    if settings.study_log is None:
        return open_home(settings)
    return SqlHome(IgnoringFileStore(Path(settings.home)), Database(settings.study_log))


@dataclass(frozen=True)
class HomeUnderTest:
    """A home, empty at first.

    Attributes:
        home: the home.
        records: where it keeps leases.
        study_log: address of its database, None if the logs are objects.
    """

    home: Home
    records: Records
    study_log: str | None = None

    def name_of(self, study: str, version: int) -> str:
        """Return how errors name a version of a log."""
        if self.study_log is None:
            return f"studies/{study}/log/{version:012d}.json"
        return f"Version {version} of the log of study {study} in {self.records.uri}"

    def plant_version(self, study: str, version: int, events: str, schema: int = SCHEMA) -> None:
        """Store a version of a log, whatever it was, with `events` as the text of its events."""
        if self.study_log is None:
            document = (
                f'{{"schema": {schema}, "version": {version}, "nonce": "n", "events": {events}}}'
            )
            self.home.store.put(f"studies/{study}/log/{version:012d}.json", document.encode())
            return
        row = {"home": self.home.store.uri, "study": study, "version": version}
        old = delete(LOG).where(*(LOG.c[name] == value for name, value in row.items()))
        new = insert(LOG).values(
            **row, schema=schema, nonce="n", events=events, written_at=DatabaseNow()
        )
        with create_engine(parse_url(self.study_log), poolclass=NullPool).begin() as connection:
            connection.execute(old)
            connection.execute(new)


def settings_for(kind: str, request: pytest.FixtureRequest, folder: Path) -> Settings:
    """Return the settings of a fresh home of one of the SHARED_KINDS."""
    home = str(folder / "home")
    if kind == "sqlite":
        return Settings(home, study_log=f"sqlite:///{folder}/study-log.db")
    if kind == "postgres":
        return Settings(home, study_log=str(request.getfixturevalue("postgres_url")))
    return Settings(home if kind == "file" else str(request.getfixturevalue("s3_store_uri")))


def home_under_test(kind: str, request: pytest.FixtureRequest, folder: Path) -> HomeUnderTest:
    """Return a fresh home of one of the KINDS."""
    if kind == "memory":
        store = MemoryObjectStore()
        return HomeUnderTest(ObjectHome(store), store)
    settings = settings_for(kind, request, folder)
    home = open_lax_home(settings)
    if settings.study_log is None:
        return HomeUnderTest(home, home.store)
    records = SqlRecords(Database(settings.study_log), home.store.uri)
    return HomeUnderTest(home, records, settings.study_log)
