"""Settings from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from automl.errors import ConfigError
from automl.storage.home import Home
from automl.storage.open import open_home

DEFAULT_HOME = "./automl-home"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where state lives and what studies may read.

    Attributes:
        home: absolute folder or `s3://bucket/prefix` under which everything is stored.
        sources: prefixes that studies may read; empty means any.
    """

    home: str
    sources: tuple[str, ...] = ()

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, home: str | None = None
    ) -> Settings:
        """Return the settings of this process; `home` overrides `AUTOML_HOME`.

        Raises:
            ConfigError: a setting has a value that cannot be used.
        """
        environment = os.environ if environment is None else environment
        if environment.get("AUTOML_STUDY_LOG"):
            raise ConfigError(
                "AUTOML_STUDY_LOG is set, and the SQL log is not available yet.",
                "unset it; the study log is kept on AUTOML_HOME",
            )
        uri = home or environment.get("AUTOML_HOME") or DEFAULT_HOME
        if "://" not in uri:
            uri = str(Path(uri).expanduser().resolve())
        elif not uri.startswith("s3://"):
            raise ConfigError(
                f"The home is {uri!r}.", "use a folder or s3://bucket/prefix for AUTOML_HOME"
            )
        sources = environment.get("AUTOML_SOURCES", "")
        return cls(uri, tuple(part.strip() for part in sources.split(",") if part.strip()))

    def open_home(self) -> Home:
        """Connect to the home; nothing is read or written yet."""
        return open_home(self.home)

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
