"""Commands of the platform, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, str] = MappingProxyType({})


def python(
    *arguments: str,
    settings: Mapping[str, str] = _NONE,
    folder: Path | None = None,
    timeout_s: float = 600.0,
) -> subprocess.CompletedProcess[str]:
    """Run Python to its end and return what it said.

    Args:
        arguments: of the interpreter.
        settings: the only variables of the platform that the process has; it keeps all others.
        folder: where it runs; None for the present one.
        timeout_s: how long it may take.
    """
    others = {
        name: value
        for name, value in os.environ.items()
        if "AUTOML" not in name or name == "AUTOML_CACHE"
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**others, **settings},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def automl(
    *arguments: str, settings: Mapping[str, str] = _NONE, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it said; as `python` does."""
    return python("-m", "automl.cli", *arguments, settings=settings, folder=folder)


def document_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the document that a command has printed which succeeded."""
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document
