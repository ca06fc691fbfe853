"""Private files: what only the user who wrote them may read."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read, not even for a moment."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.rename(path)


def private_folder(path: Path) -> Path:
    """Return a folder that nobody else can look into; made if it is missing."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def kept_secret(path: Path, size_bytes: int = 24) -> str:
    """Return the secret of a private file; made up, and kept there, if it is missing."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    write_private(path, f"{secrets.token_urlsafe(size_bytes)}\n")
    return path.read_text().strip()
