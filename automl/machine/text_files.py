"""Text files that others write: read in bounded time, whatever they are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from automl.errors import ConfigError


def read_text_file(path: Path, most_bytes: int) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    Nothing is opened that is no regular file, and nothing is waited for.

    Args:
        path: of the file.
        most_bytes: a larger file is refused.

    Raises:
        ConfigError: it cannot be read; the message says why.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError("It is no regular file.", "put a text file there")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        number = error.errno if isinstance(error, OSError) else None
        why = str(error) if number is None else os.strerror(number)
        raise ConfigError(f"It cannot be read: {why}.", "correct its path or rights") from error
    if len(content) > most_bytes:
        raise ConfigError(f"It is larger than {most_bytes} bytes.", "is it the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"It is not UTF-8: {error.reason} in byte {error.start}.", "save it as UTF-8"
        ) from error
