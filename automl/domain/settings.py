"""Settings from the environment; `automl.storage.open` opens the home that they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from automl.domain.byte_size import format_byte_size, parse_byte_size
from automl.errors import ConfigError

DEFAULT_HOME = "./automl-home"
STUDY_LOG, STUDY_LOG_CONNECTION = "AUTOML_STUDY_LOG", "AUTOML_STUDY_LOG_CONN_ID"
_HOME, _STUDY_LOG_FILE = "AUTOML_HOME", "AUTOML_STUDY_LOG_FILE"
_STUDY_LOG_FORMS = (STUDY_LOG, _STUDY_LOG_FILE, STUDY_LOG_CONNECTION)
_ADDRESS_BYTES = 1 << 16
_CACHE, _CACHE_SIZE = "AUTOML_CACHE", "AUTOML_CACHE_SIZE"
NO_CACHE = "off"
_DEFAULT_CACHE_BYTES = 10 * 10**9


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of an installation: where state lives and what studies may read.

    Attributes:
        home: absolute folder or `s3://bucket/prefix` under which everything is stored.
        sources: prefixes that studies may read, as they are set; see `automl.domain.sources`.
        study_log: address of the database that keeps study logs and leases, which may hold a
            password; None keeps them in the home.
        cache: folder in which shards of a home on S3 are copied to this machine; "" for the
            machine's folder of temporary files, `off` for no copies.
        cache_bytes: how much the copies may take.
    """

    home: str
    sources: tuple[str, ...] = ()
    study_log: str | None = field(default=None, repr=False)
    cache: str = NO_CACHE
    cache_bytes: int = _DEFAULT_CACHE_BYTES

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, home: str | None = None
    ) -> Settings:
        """Return the settings of this process; `home` overrides `AUTOML_HOME`.

        Raises:
            ConfigError: a setting has a value that cannot be used.
        """
        environment = os.environ if environment is None else environment
        study_log = _study_log(environment)
        uri = home or environment.get(_HOME) or DEFAULT_HOME
        if "://" not in uri:
            uri = str(Path(uri).expanduser().resolve())
        elif not uri.startswith("s3://"):
            raise ConfigError(
                f"The home is {uri!r}.", "use a folder or s3://bucket/prefix for AUTOML_HOME"
            )
        sources = environment.get("AUTOML_SOURCES", "")
        prefixes = tuple(part.strip() for part in sources.split(",") if part.strip())
        return cls(uri, prefixes, study_log, *_cache(environment))

    def child_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return `environment` with the variables by which a child process has these settings."""
        own = {k: value for k, value in environment.items() if k not in _STUDY_LOG_FORMS}
        log = {} if self.study_log is None else {STUDY_LOG: self.study_log}
        size = format_byte_size(self.cache_bytes)
        return {**own, **log, _HOME: self.home, _CACHE: self.cache, _CACHE_SIZE: size}


def _cache(environment: Mapping[str, str]) -> tuple[str, int]:
    """Return where shards are copied to, and how much the copies may take."""
    folder = environment.get(_CACHE, "").strip()
    if folder not in {"", NO_CACHE} and not Path(folder).is_absolute():
        raise ConfigError(f"{_CACHE} is {folder!r}.", f"use an absolute folder, or {NO_CACHE}")
    size = environment.get(_CACHE_SIZE, "").strip()
    try:
        return folder, parse_byte_size(size) if size else _DEFAULT_CACHE_BYTES
    except ValueError as error:
        raise ConfigError(f"{_CACHE_SIZE}: {error}.", "use an amount such as 20GB") from error


def study_log_form(environment: Mapping[str, str]) -> str | None:
    """Return the variable that names the database of study logs; None without one.

    Raises:
        ConfigError: several variables do.
    """
    given = [name for name in _STUDY_LOG_FORMS if environment.get(name)]
    if len(given) > 1:
        raise ConfigError(
            f"{' and '.join(given)} are set, and each names the database of study logs.",
            "set one of them only",
        )
    return given[0] if given else None


def _study_log(environment: Mapping[str, str]) -> str | None:
    """Return the address of the database of study logs, which may hold a password."""
    form = study_log_form(environment)
    if form == STUDY_LOG_CONNECTION:
        raise ConfigError(
            f"{form} names a connection of Airflow, which only its tasks can look up.",
            f"set {STUDY_LOG} or {_STUDY_LOG_FILE} here instead",
        )
    if form == _STUDY_LOG_FILE:
        return _address_in(environment[form])
    return environment[form] if form else None


def _address_in(name: str) -> str:
    """Return the only line of a file; no message holds any of it."""
    try:
        with Path(name).expanduser().open("rb") as file:
            address = file.read(_ADDRESS_BYTES).decode().strip()
    except (OSError, RuntimeError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "it is not the name of a text file"
        raise ConfigError(
            f"The file {name} in {_STUDY_LOG_FILE} cannot be read: {cause}.",
            "correct the path, or the rights of this user",
        ) from None
    if not address:
        raise ConfigError(
            f"The file {name} in {_STUDY_LOG_FILE} is empty.",
            "write the address of the database into it",
        )
    return address
