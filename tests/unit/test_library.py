"""The studies of a home are followed: each look reads only what is new."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from automl.domain.events import Event, TrialOpened
from automl.errors import ConfigError
from automl.publishing.registry import Registry
from automl.storage.home import ObjectHome
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import StoredObject
from automl.storage.study_log import StudyLog
from automl.views.leaderboard import rank_trials
from automl.views.library import Library
from automl.views.models import list_models
from automl.views.studies import list_studies
from automl.views.trial import show_trial
from tests.shown import AT, STUDY, append, write_study
from tests.versions import NOW, publish


class WatchedLog:
    """A study log that counts the events it gives, and who reads at the same time."""

    def __init__(self, log: StudyLog) -> None:
        self._log = log
        self.given, self.readers, self.most_readers = 0, 0, 0

    def read(self, after: int = -1) -> Sequence[tuple[int, Event]]:
        self.readers += 1
        self.most_readers = max(self.most_readers, self.readers)
        news = self._log.read(after)
        time.sleep(0.001)  # others come to read the same news
        self.given += len(news)
        self.readers -= 1
        return news

    def append(self, events: Sequence[Event], *, expected_version: int) -> int:
        return self._log.append(events, expected_version=expected_version)


class WatchedStore(MemoryObjectStore):
    """A store that keeps the keys that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get(self, key: str) -> StoredObject:
        self.asked.append(key)
        return super().get(key)


class WatchedHome(ObjectHome):
    """A home whose one log is watched."""

    def __init__(self, store: MemoryObjectStore) -> None:
        super().__init__(store)
        self.log = WatchedLog(super().study_log(STUDY))

    def study_log(self, study: str) -> StudyLog:
        return self.log if study == STUDY else super().study_log(study)


@pytest.fixture
def home() -> WatchedHome:
    home = WatchedHome(WatchedStore())
    write_study(home)
    return home


def test_every_event_is_read_once_whatever_is_looked_at(home: WatchedHome) -> None:
    library = Library(home)

    for _ in range(3):
        list_studies(library)
        rank_trials(library, STUDY)
        show_trial(library, STUDY, 1)
        list_models(library, STUDY)
    assert home.log.given == library.study(STUDY).version + 1

    append(ObjectHome(home.store), TrialOpened(at=AT, n=3, run="a", worker="w"))
    assert len(rank_trials(library, STUDY).trials) == 4
    assert home.log.given == library.study(STUDY).version + 1


def test_the_manifest_of_a_version_is_read_once() -> None:
    store = WatchedStore()
    home = ObjectHome(store)
    write_study(home)
    publish(Registry(store, STUDY), "a")
    library = Library(home)
    store.asked.clear()

    assert list_models(library, STUDY) == list_models(library, STUDY)

    assert store.asked.count(f"models/{STUDY}/1/manifest.json") == 1


def test_several_threads_may_look_while_the_study_goes_on(home: WatchedHome) -> None:
    library, writer = Library(home), ObjectHome(home.store)

    def look() -> list[int]:
        return [len(library.study(STUDY).trials) for _ in range(60)]

    with ThreadPoolExecutor(4) as pool:
        looks = [pool.submit(look) for _ in range(4)]
        for number in range(3, 23):
            append(writer, TrialOpened(at=AT, n=number, run="a", worker="w"))
    for seen in looks:
        assert seen.result() == sorted(seen.result())
    assert len(library.study(STUDY).trials) == 23
    assert home.log.most_readers == 1


def test_an_unknown_study_is_refused_with_the_known_ones(home: WatchedHome) -> None:
    library = Library(home)

    with pytest.raises(ConfigError, match=r"no study 'letters' under memory:") as caught:
        library.study("letters")
    assert caught.value.hint == f"known here: {STUDY}"


def test_a_version_that_is_promoted_later_is_seen(home: WatchedHome) -> None:
    library, registry = Library(home), Registry(home.store, STUDY)
    assert library.champion_version(STUDY) is None

    registry.promote(publish(registry, "a"), "a", "Better.", NOW)

    assert library.champion_version(STUDY) == 1
