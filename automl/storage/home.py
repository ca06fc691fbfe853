"""Where an installation keeps everything: objects, and the log and the leases of each study."""

from __future__ import annotations

from typing import Protocol

from automl.storage.leases import TTL_S, Leases
from automl.storage.objects import ObjectStore
from automl.storage.study_log import ObjectStudyLog, StudyLog

_STUDIES = "studies/"


class Home(Protocol):
    """All durable state of an installation.

    `docs/adr/0004-storage-backends.md` tells which kinds there are and what each guarantees.
    """

    @property
    def store(self) -> ObjectStore:
        """Snapshots, checkpoints, models; its conditional writes can be relied on."""

    def study_log(self, study: str) -> StudyLog:
        """Return the log of the study called `study`, which may be empty."""

    def leases(self, study: str, ttl_s: float = TTL_S) -> Leases:
        """Return the leases of the study called `study`, each living `ttl_s` unless renewed."""

    def study_names(self) -> list[str]:
        """Return the names of all studies whose log is not empty, sorted."""


class ObjectHome:
    """A home that is an object store alone.

    Args:
        store: obeys conditional writes.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    def store(self) -> ObjectStore:
        """The object store."""
        return self._store

    def study_log(self, study: str) -> StudyLog:
        """Return the log of the study called `study`."""
        return ObjectStudyLog(self._store, f"{_STUDIES}{study}/log")

    def leases(self, study: str, ttl_s: float = TTL_S) -> Leases:
        """Return the leases of the study called `study`."""
        return Leases(self._store, f"{_STUDIES}{study}/leases", ttl_s)

    def study_names(self) -> list[str]:
        """Return the names of all studies, sorted."""
        keys = (entry.key.split("/") for entry in self._store.list(_STUDIES))
        return sorted({parts[1] for parts in keys if len(parts) > 3 and parts[2] == "log"})
