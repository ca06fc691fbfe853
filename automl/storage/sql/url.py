"""Addresses of databases: which ones are understood, and how they are shown."""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from automl.errors import ConfigError

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql+psycopg"
_HINT = (
    "use sqlite:////absolute/path/study-log.db or postgresql://user:password@host/database, "
    "with the signs @ : / ? # % of a password percent-encoded"
)
_HOST = re.compile(r"[A-Za-z0-9._-]*|[0-9A-Fa-f:.]+")  # the latter: IPv6


def parse_url(text: str) -> URL:
    """Return the address of a database; nothing is connected to.

    Args:
        text: `sqlite:////absolute/path`, `postgresql://…` or `postgresql+psycopg://…`.

    Raises:
        ConfigError: it is no such address; the message never holds what it could hide.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # their texts may hold the password
        raise ConfigError("AUTOML_STUDY_LOG is not the address of a database.", _HINT) from None
    if url.drivername == SQLITE:
        return _checked_sqlite(url)
    if url.drivername in {"postgresql", POSTGRESQL}:
        return _checked_postgresql(url.set(drivername=POSTGRESQL))
    raise ConfigError("AUTOML_STUDY_LOG names a kind of database that is not supported.", _HINT)


def shown(url: URL) -> str:
    """Return the address without user, password and options."""
    if url.drivername == SQLITE:
        return f"sqlite:///{url.database}"
    host = f"[{url.host}]" if url.host and ":" in url.host else url.host or ""
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{host}{port}/{url.database}"


def without_password(url: URL) -> URL:
    """Return the address for a process that has the password from elsewhere."""
    return URL.create(
        url.drivername, url.username, None, url.host, url.port, url.database, url.query
    )


def _checked_sqlite(url: URL) -> URL:
    if not url.database or not url.database.startswith("/") or url.host or url.query:
        raise ConfigError(
            "AUTOML_STUDY_LOG does not name an absolute path of a SQLite file.", _HINT
        )
    return url


def _checked_postgresql(url: URL) -> URL:
    if not url.database or "@" in url.database or "/" in url.database:
        raise ConfigError("AUTOML_STUDY_LOG does not name a database.", _HINT)
    if not _HOST.fullmatch(url.host or ""):  # the rest of a password, perhaps
        raise ConfigError("AUTOML_STUDY_LOG has no plain host name.", _HINT)
    if any(option.endswith("password") for option in url.query):
        raise ConfigError(
            "AUTOML_STUDY_LOG has a password among its options.",
            "put it before the host, or into the file that PGPASSFILE names",
        )
    return url
