"""Small records with conditional writes, as rows of a table."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from automl.errors import DamagedDataError, NotFoundError, PreconditionFailedError
from automl.storage.objects import StoredObject, check_key
from automl.storage.sql.database import Database
from automl.storage.sql.tables import RECORDS, DatabaseNow


class SqlRecords:
    """Records in a database, dated by the database's clock; leases are kept in them.

    Args:
        database: where the records live.
        home: URI of the home that they belong to; homes may share a database.
    """

    def __init__(self, database: Database, home: str) -> None:
        self._database, self._home = database, home

    @property
    def uri(self) -> str:
        """The database."""
        return self._database.uri

    def get(self, key: str) -> StoredObject:
        """Return the record under `key`; raise NotFoundError if there is none."""
        columns = RECORDS.c.data, RECORDS.c.etag, RECORDS.c.modified
        rows = self._database.read(select(*columns).where(*self._is_at(key)))
        if not rows:
            raise NotFoundError(f"There is no {key} in {self.uri}.")
        row = rows[0]
        if not isinstance(row.modified, datetime):
            raise DamagedDataError(
                f"{key} in {self.uri} has no time of writing.",
                "delete its row when nobody works on it",
            )
        return StoredObject(bytes(row.data), str(row.etag), row.modified)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a record that does not exist yet, or raise PreconditionFailedError."""
        check_key(key)
        etag = _etag(data)
        row = insert(RECORDS).values(
            home=self._home, key=key, data=data, etag=etag, modified=DatabaseNow()
        )
        try:
            self._database.write(row)
        except PreconditionFailedError as error:
            raise PreconditionFailedError(f"{key} exists in {self.uri} already.") from error
        return etag

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Write a record that still has `etag`, or raise PreconditionFailedError."""
        new_etag = _etag(data)
        change = (
            update(RECORDS)
            .where(*self._is_at(key), RECORDS.c.etag == etag)
            .values(data=data, etag=new_etag, modified=DatabaseNow())
        )
        if self._database.write(change) == 0:
            raise PreconditionFailedError(f"{key} in {self.uri} has changed or is gone.")
        return new_etag

    def now(self) -> datetime:
        """Return the present time in UTC by the database's clock."""
        (row,) = self._database.read(select(DatabaseNow()))
        present: datetime = row[0]
        return present

    def _is_at(self, key: str) -> tuple[Any, Any]:
        check_key(key)
        return RECORDS.c.home == self._home, RECORDS.c.key == key


def _etag(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
