"""Files that appear whole or not at all, and stay after a power cut."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def temporary_name(folder: Path) -> Path:
    """Return a path in `folder` that nothing has."""
    return folder / f".tmp-{uuid.uuid4().hex}"


@contextmanager
def written_file(folder: Path, write: Callable[[BinaryIO], object]) -> Iterator[Path]:
    """Yield a synced temporary file in `folder` that `write` has filled; it is gone afterwards."""
    path = temporary_name(folder)
    try:
        with path.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(temporary: Path, path: Path) -> None:
    """Give a synced file its name, durably, in place of what had it."""
    temporary.replace(path)
    sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file durably, in place of what had its name; its folder must exist."""
    with written_file(path.parent, lambda file: file.write(data)) as temporary:
        replace_file(temporary, path)
