"""Homes of installations: objects, and the log and the leases of each study."""

from __future__ import annotations

from typing import Protocol

from automl.domain.layout import STUDIES, StudyKeys, study_of_log
from automl.errors import ConfigError
from automl.storage.leases import TTL_S, Leases
from automl.storage.objects import ObjectStore
from automl.storage.study_log import ObjectStudyLog, StudyLog


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


def no_study(home: Home, name: str) -> ConfigError:
    """Return the error for the name of a study that is not there, with those that are."""
    known = ", ".join(home.study_names()) or "none"
    return ConfigError(
        f"There is no study {name!r} under {home.store.uri}.", f"known here: {known}"
    )


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
        return ObjectStudyLog(self._store, StudyKeys(study).log.folder)

    def leases(self, study: str, ttl_s: float = TTL_S) -> Leases:
        """Return the leases of the study called `study`."""
        return Leases(self._store, StudyKeys(study).leases, ttl_s)

    def study_names(self) -> list[str]:
        """Return the names of all studies, sorted."""
        found = (study_of_log(entry.key) for entry in self._store.list(STUDIES))
        return sorted({name for name in found if name is not None})
