"""The study log in a database: each version is a row."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Insert, Row, insert, literal, select

from automl.domain.events import SCHEMA, Event, event_from_json, event_to_json
from automl.errors import (
    DamagedDataError,
    NewerSchemaError,
    PreconditionFailedError,
    StaleWriteError,
)
from automl.storage.sql.database import Database
from automl.storage.sql.tables import LOG, DatabaseNow

_RESTORE = "restore it from a backup of the database; see docs/runbook.md"


class SqlStudyLog:
    """A study log in a database.

    Args:
        database: where the log lives.
        home: URI of the home that the study belongs to; homes may share a database.
        study: the study's name.
    """

    def __init__(self, database: Database, home: str, study: str) -> None:
        self._database, self._home, self._study = database, home, study

    def read(self, after: int = -1) -> Sequence[tuple[int, Event]]:
        """Return (version, event) of all versions later than `after`, oldest first.

        Raises:
            NewerSchemaError: a version was written by a newer version of the platform.
            DamagedDataError: a version cannot be read, or is missing.
        """
        rows = self._database.read(
            select(LOG.c.version, LOG.c.schema, LOG.c.events)
            .where(*self._is_mine, LOG.c.version > after)
            .order_by(LOG.c.version)
        )
        found: list[tuple[int, Event]] = []
        for expected, row in enumerate(rows, after + 1):
            if row.version != expected:
                raise DamagedDataError(f"{self._name(expected)} is gone.", _RESTORE)
            found += [(row.version, event) for event in self._events(row)]
        return found

    def append(self, events: Sequence[Event], *, expected_version: int) -> int:
        """Add `events` durably as one version and return its number.

        A write whose reply was lost is recognised by its nonce and counts as done.

        Raises:
            StaleWriteError: the log has grown past `expected_version`.
            DamagedDataError: the log does not reach `expected_version`.
        """
        version, nonce = expected_version + 1, uuid.uuid4().hex
        try:
            count = self._database.write(self._insertion(version, nonce, events))
        except PreconditionFailedError as error:
            if self._nonce(version) != nonce:
                raise StaleWriteError(
                    f"Version {version} of the study log exists already.", "read it and try again"
                ) from error
            return version
        if count == 0:
            raise DamagedDataError(
                f"{self._name(expected_version)} is gone, which was read before.", _RESTORE
            )
        return version

    def _insertion(self, version: int, nonce: str, events: Sequence[Event]) -> Insert:
        """Return a statement that inserts nothing where the version before is missing."""
        documents = [event_to_json(event) for event in events]
        values = {
            LOG.c.home: self._home,
            LOG.c.study: self._study,
            LOG.c.version: version,
            LOG.c.schema: SCHEMA,
            LOG.c.nonce: nonce,
            LOG.c.events: json.dumps(documents, separators=(",", ":")),
        }
        row = select(
            *(literal(value, column.type) for column, value in values.items()), DatabaseNow()
        )
        if version > 0:
            before = select(LOG.c.version).where(*self._is_mine, LOG.c.version == version - 1)
            row = row.where(before.exists())
        return insert(LOG).from_select([*values, LOG.c.written_at], row)

    @property
    def _is_mine(self) -> tuple[Any, Any]:
        return LOG.c.home == self._home, LOG.c.study == self._study

    def _name(self, version: int) -> str:
        return f"Version {version} of the log of study {self._study} in {self._database.uri}"

    def _nonce(self, version: int) -> str | None:
        rows = self._database.read(
            select(LOG.c.nonce).where(*self._is_mine, LOG.c.version == version)
        )
        return str(rows[0].nonce) if rows else None

    def _events(self, row: Row[Any]) -> list[Event]:
        name = self._name(row.version)
        if row.schema != SCHEMA:
            raise NewerSchemaError(
                f"{name} has schema {row.schema}, and this version reads {SCHEMA}.",
                "it was written by a newer version; upgrade this worker",
            )
        try:
            documents = json.loads(row.events)
        except (ValueError, TypeError) as error:
            raise DamagedDataError(f"{name} is not JSON.", _RESTORE) from error
        if not isinstance(documents, list):
            raise DamagedDataError(f"{name} is not a list of events.", _RESTORE)
        return [event_from_json(document, name) for document in documents]
