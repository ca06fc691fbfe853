"""The person whose process this is."""

from __future__ import annotations

import getpass
import os


def person() -> str:
    """Return the name of the user that this process runs as."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"
