"""The tables of study logs and leases; `docs/formats/sql.md` is their specification."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Dialect,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from automl.errors import DamagedDataError, NewerSchemaError

SCHEMA = 1


class Instant(TypeDecorator[datetime]):
    """A time in UTC; text in SQLite, which has no type for times."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column's type in a database."""
        kind = Text() if dialect.name == "sqlite" else DateTime(timezone=True)
        return dialect.type_descriptor(kind)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return the time that the database has sent; None for a damaged one."""
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                return None
        return value.astimezone(UTC) if isinstance(value, datetime) else None


class DatabaseNow(FunctionElement[datetime]):
    """The present time by the database's clock, also within a transaction that began earlier."""

    type = Instant()
    inherit_cache = True


@compiles(DatabaseNow, "postgresql")
def _now_of_postgresql(element: DatabaseNow, compiler: SQLCompiler, **options: Any) -> str:
    return "clock_timestamp()"


@compiles(DatabaseNow, "sqlite")
def _now_of_sqlite(element: DatabaseNow, compiler: SQLCompiler, **options: Any) -> str:
    return "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"  # to the millisecond


TABLES = MetaData()

SCHEMAS = Table(
    "automl_schema",
    TABLES,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)

LOG = Table(
    "automl_log",
    TABLES,
    Column("home", Text, primary_key=True),
    Column("study", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("schema", Integer, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("events", Text, nullable=False),
    Column("written_at", Instant, nullable=False),
)

RECORDS = Table(
    "automl_records",
    TABLES,
    Column("home", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("etag", Text, nullable=False),
    Column("modified", Instant, nullable=False),
)


def have_tables(connection: Connection) -> bool:
    """Return whether the tables exist."""
    return inspect(connection).has_table(SCHEMAS.name)


def make_tables(connection: Connection) -> None:
    """Create what is missing; to be called in a transaction that excludes all others who do so."""
    TABLES.create_all(connection)
    if connection.execute(select(SCHEMAS.c.version)).first() is None:
        connection.execute(insert(SCHEMAS).values(id=1, version=SCHEMA))


def check_schema(connection: Connection, uri: str) -> None:
    """Refuse tables that this version does not know.

    Args:
        connection: to a database that has the tables.
        uri: names the database in errors.

    Raises:
        NewerSchemaError: they were made by a newer version.
        DamagedDataError: they do not say which version made them.
    """
    found = connection.execute(select(SCHEMAS.c.version)).scalar()
    if not isinstance(found, int) or found < 1:
        raise DamagedDataError(
            f"The table {SCHEMAS.name} in {uri} does not tell the version of the tables.",
            "restore it from a backup of the database; see docs/runbook.md",
        )
    if found > SCHEMA:
        raise NewerSchemaError(
            f"The tables in {uri} have schema {found}, and this version reads {SCHEMA}.",
            "they were made by a newer version; upgrade this worker",
        )
