"""Errors of SQLAlchemy and its drivers, and what they mean for the platform."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from automl.errors import DamagedDataError, StorageAccessError, StorageError, StorageFullError

_LOGIN: Final = "correct the user and the password in AUTOML_STUDY_LOG, or the server's pg_hba.conf"
_DATABASE: Final = "create the database, or correct its name in AUTOML_STUDY_LOG"
_RIGHTS: Final = (
    "let this role create tables, or create them as docs/formats/sql.md says and let it select, "
    "insert and update there"
)
_READ_ONLY: Final = "use the primary server: this one is read-only"
_TABLES: Final = "the tables were removed or changed by hand: restore them; see docs/formats/sql.md"
_FILE: Final = (
    "the folder of the file in AUTOML_STUDY_LOG must exist, and this user must have the rights to "
    "the folder and the file"
)
_WAIT: Final = "try again; if it stays, look at the database's log"
_RESTORE: Final = "restore it from a backup of the database; see docs/runbook.md"

_ACCESS_STATES: Final[Mapping[str, str]] = {
    "25006": _READ_ONLY,
    "28000": _LOGIN,
    "28P01": _LOGIN,
    "3D000": _DATABASE,
    "42501": _RIGHTS,
    "42P01": _TABLES,
    "42703": _TABLES,
    "3F000": _RIGHTS,  # no schema to create the tables in
}
_DAMAGED_STATES: Final = {"XX001", "XX002"}
_DISK_FULL: Final = "53100"
# Connections broken or refused, too few resources, serialization, deadlock, lock, statement timeout
_PASSING_CLASSES: Final = ("08", "53", "40001", "40P01", "55P03", "57014", "57P0")

# libpq tells no state of a connection that is refused
_ACCESS_TEXTS: Final[Mapping[str, str]] = {
    "authentication failed": _LOGIN,
    "no password supplied": _LOGIN,
    "no pg_hba.conf entry": _LOGIN,
    "is not permitted to log in": _LOGIN,
    'role "': _LOGIN,
    '" does not exist': _DATABASE,
    "permission denied for database": _RIGHTS,
    "invalid connection option": "correct the options in AUTOML_STUDY_LOG",
}

_SQLITE_PASSING: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_SQLITE_ACCESS: Final = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_AUTH,
}
_SQLITE_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_passing(error: SQLAlchemyError) -> bool:
    """Return whether the same call may succeed in a moment."""
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    code = _sqlite_code(error)
    if code is not None:
        return code in _SQLITE_PASSING
    state = _state(error)
    if state is not None:
        return state.startswith(_PASSING_CLASSES) and state != _DISK_FULL
    return error.connection_invalidated or (
        _is_operational(error) and _hint_of_text(_text(error)) is None
    )


def translate(error: SQLAlchemyError, uri: str) -> StorageError:
    """Return the platform's error; it names the database at `uri`, never a password."""
    if not isinstance(error, DBAPIError):
        return StorageError(f"{uri} cannot be used ({type(error).__name__}).", _WAIT)
    message = f"{uri} cannot be used: {_text(error)}."
    code, state = _sqlite_code(error), _state(error)
    if code in _SQLITE_DAMAGED or state in _DAMAGED_STATES:
        return DamagedDataError(message, _RESTORE)
    if code in _SQLITE_ACCESS:
        return StorageAccessError(message, _FILE)
    if code == sqlite3.SQLITE_FULL or state == _DISK_FULL:
        return StorageFullError(message, "make room on the database's disk, then try again")
    hint = _ACCESS_STATES.get(state) if state is not None else _hint_of_text(_text(error))
    if code is None and hint is not None:
        return StorageAccessError(message, hint)
    if code is None and state is None:
        return StorageError(message, "is the server up, and AUTOML_STUDY_LOG right?")
    return StorageError(message, _WAIT)


def _sqlite_code(error: DBAPIError) -> int | None:
    """Return the primary result code of SQLite, None for another database or the driver itself."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def _state(error: DBAPIError) -> str | None:
    """Return the SQLSTATE that PostgreSQL has sent, if it has."""
    state = getattr(error.orig, "sqlstate", None)
    return state if isinstance(state, str) else None


def _is_operational(error: DBAPIError) -> bool:
    return type(error.orig).__name__ == "OperationalError"


def _text(error: DBAPIError) -> str:
    """Return the server's own words, in one line; drivers never put a password there."""
    lines = str(error.orig).strip().splitlines()
    first = lines[0] if lines else type(error.orig).__name__
    return first.rpartition(" failed: ")[2].removeprefix("FATAL:").strip().rstrip(".")


def _hint_of_text(text: str) -> str | None:
    return next((hint for part, hint in _ACCESS_TEXTS.items() if part in text), None)
