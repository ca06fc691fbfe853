"""The studies of a home, followed: whoever looks again reads only what is new."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from automl.domain.settings import Settings
from automl.domain.study import Study
from automl.domain.trial import Trial
from automl.errors import ConfigError
from automl.publishing.manifest import Manifest
from automl.publishing.registry import Registry
from automl.storage.home import Home, no_study
from automl.storage.objects import ObjectStore
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord


@dataclass(frozen=True, slots=True)
class _Followed:
    """One study, as far as it has been read.

    Attributes:
        record: the study, kept up to date from its log.
        registry: its published versions.
        manifests: of versions by number; they never change.
        reading: held by the thread that reads.
    """

    record: StudyRecord
    registry: Registry
    manifests: dict[int, Manifest] = field(default_factory=dict)
    reading: threading.Lock = field(default_factory=threading.Lock)


class Library:
    """The studies of a home; several threads may look at once.

    Args:
        home: where studies and versions are kept.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._followed: dict[str, _Followed] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, settings: Settings) -> Library:
        """Return the studies of the home that settings name; nothing is read yet.

        Raises:
            ConfigError: they name no home.
        """
        return cls(open_home(settings))

    @property
    def store(self) -> ObjectStore:
        """The home's objects."""
        return self._home.store

    def names(self) -> list[str]:
        """Return the names of all studies, sorted."""
        return self._home.study_names()

    def study(self, name: str) -> Study:
        """Return the study called `name` as it is now.

        Raises:
            ConfigError: the home has no such study.
            StorageError: its log cannot be read.
        """
        followed = self._follow(name)
        with followed.reading:
            study = followed.record.refresh()
        if not study.runs:
            self._followed.pop(name, None)  # whatever names are asked for, none is kept for nothing
            raise no_study(self._home, name)
        return study

    def registry(self, name: str) -> Registry:
        """Return the published versions of a study."""
        return self._follow(name).registry

    def manifest(self, name: str, version: int) -> Manifest:
        """Return what a published version of a study says about itself.

        Raises:
            NotFoundError: there is no such version.
        """
        followed = self._follow(name)
        if version not in followed.manifests:
            followed.manifests[version] = followed.registry.manifest(version)
        return followed.manifests[version]

    def champion_version(self, name: str) -> int | None:
        """Return the version that is a study's champion, None before the first promotion."""
        champion = self.registry(name).champion()
        return None if champion is None else champion.version

    def _follow(self, name: str) -> _Followed:
        with self._lock:
            if name not in self._followed:
                record = StudyRecord(self._home.study_log(name))
                self._followed[name] = _Followed(record, Registry(self.store, name))
            return self._followed[name]


def find_trial(study: Study, name: str, number: int) -> Trial:
    """Return a trial of the study called `name`.

    Raises:
        ConfigError: there is no such trial.
    """
    if not 0 <= number < len(study.trials):
        raise ConfigError(
            f"Study {name} has no trial {number}.", f"trials are 0 to {len(study.trials) - 1}"
        )
    return study.trials[number]
