"""A home whose every operation can fail, and copies of homes."""

from __future__ import annotations

from automl.storage.home import Home, ObjectHome
from tests.crash.points import CrashingStore


def crashing_home(home: Home) -> Home:
    """Return `home` with all its operations going through the process's crash point."""
    return ObjectHome(CrashingStore(home.store))


def copy_home(source: Home, target: Home) -> None:
    """Copy everything but leases, which nobody holds between two steps."""
    for entry in source.store.list(""):
        if "/leases/" not in entry.key:
            target.store.put(entry.key, source.store.get(entry.key).data)
