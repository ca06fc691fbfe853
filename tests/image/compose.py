"""Services of docker/compose.yaml, as `podman run` starts them one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).parents[2] / "docker/compose.yaml"
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Z_]+)(?::[-?]([^}]*))?\})")


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the image.

    Attributes:
        name: of the service.
        document: what the compose file says of it, variables resolved.
    """

    name: str
    document: Mapping[str, Any]

    @property
    def command(self) -> list[str]:
        """Words of its command."""
        return [str(word) for word in self.document["command"]]

    def podman_arguments(self, folders: Mapping[str, Path], secrets: Path) -> list[str]:
        """Return the arguments of `podman run` that stand for what the compose file says.

        Volumes are podman's own, which get owner, mode and content of the image's folder, as
        Docker's do.

        Args:
            folders: what stands for each folder of the host, by its name.
            secrets: the folder of the secrets.
        """
        document = self.document
        assert document["read_only"] is True
        assert document["cap_drop"] == ["ALL"]
        words = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        words += ["--user", document["user"], "--hostname", self.name]
        for name, value in (document.get("environment") or {}).items():
            words += ["--env", f"{name}={'' if value is None else value}"]
        for mount in document["tmpfs"]:
            place, _, options = mount.partition(":")
            words += ["--tmpfs", f"{place}:rw,{options}" if options else f"{place}:rw"]
        for name in document.get("secrets", []):
            words += ["--volume", f"{secrets / name}:/run/secrets/{name}:ro"]
        for volume in document.get("volumes", []):
            source, _, target = volume.partition(":")
            words += ["--volume", f"{folders.get(source, source)}:{target}"]
        return words


def resolved(text: str, settings: Mapping[str, str]) -> str:
    """Return text with `${NAME:-default}` replaced, as compose does."""
    return _VARIABLE.sub(
        lambda found: "$" if found[1] is None else settings.get(found[1]) or found[2] or "", text
    )


def services(settings: Mapping[str, str]) -> dict[str, Service]:
    """Return the services that run the image, in the file's order."""
    document = yaml.safe_load(resolved(COMPOSE.read_text(), settings))
    return {
        name: Service(name, service)
        for name, service in document["services"].items()
        if "build" in service
    }
