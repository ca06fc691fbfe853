"""Copies of homes."""

from __future__ import annotations

from automl.domain.settings import Settings
from automl.storage.open import open_home


def copy_home(source: Settings, target: Settings) -> None:
    """Copy everything but leases, which nobody holds between two steps."""
    old, new = open_home(source), open_home(target)
    for entry in old.store.list(""):
        if "/leases/" not in entry.key:
            new.store.put(entry.key, old.store.get(entry.key).data)
    if source.study_log is None:  # its objects were the log
        return
    for study in old.study_names():
        log, events = new.study_log(study), old.study_log(study).read()
        for version in range(events[-1][0] + 1):
            same = [event for number, event in events if number == version]
            log.append(same, expected_version=version - 1)
