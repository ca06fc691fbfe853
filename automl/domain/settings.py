"""Settings from the environment; `automl.storage.open` opens the home that they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from automl.errors import ConfigError

DEFAULT_HOME = "./automl-home"
_HOME, _STUDY_LOG = "AUTOML_HOME", "AUTOML_STUDY_LOG"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of an installation: where state lives and what studies may read.

    Attributes:
        home: absolute folder or `s3://bucket/prefix` under which everything is stored.
        sources: prefixes that studies may read; empty means any.
        study_log: address of the database that keeps study logs and leases, which may hold a
            password; None keeps them in the home.
    """

    home: str
    sources: tuple[str, ...] = ()
    study_log: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, home: str | None = None
    ) -> Settings:
        """Return the settings of this process; `home` overrides `AUTOML_HOME`.

        Raises:
            ConfigError: a setting has a value that cannot be used.
        """
        environment = os.environ if environment is None else environment
        study_log = environment.get(_STUDY_LOG) or None
        uri = home or environment.get(_HOME) or DEFAULT_HOME
        if "://" not in uri:
            uri = str(Path(uri).expanduser().resolve())
        elif not uri.startswith("s3://"):
            raise ConfigError(
                f"The home is {uri!r}.", "use a folder or s3://bucket/prefix for AUTOML_HOME"
            )
        sources = environment.get("AUTOML_SOURCES", "")
        prefixes = tuple(part.strip() for part in sources.split(",") if part.strip())
        return cls(uri, prefixes, study_log)

    def child_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return `environment` with the variables by which a child process finds the same home."""
        own = {name: value for name, value in environment.items() if name != _STUDY_LOG}
        log = {} if self.study_log is None else {_STUDY_LOG: self.study_log}
        return {**own, **log, _HOME: self.home}

    def check_source(self, uri: str) -> None:
        """Refuse a source outside `AUTOML_SOURCES`.

        Raises:
            ConfigError: `uri` is under none of the prefixes.
        """
        if not self.sources:
            return
        place = uri if "://" in uri else str(Path(uri).resolve())
        for prefix in self.sources:
            root = prefix if "://" in prefix else str(Path(prefix).resolve())
            if place == root or place.startswith(root.rstrip("/") + "/"):
                return
        raise ConfigError(
            f"{uri} is outside the folders that studies may read.",
            f"AUTOML_SOURCES allows {', '.join(self.sources)}",
        )
