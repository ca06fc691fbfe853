"""Many writers of one registry: versions are given once, promotions are neither lost nor doubled.

In processes on a folder and on S3, in threads in memory.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from automl.publishing.promotions import version_before
from automl.publishing.registry import Registry
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectStore, StoredObject
from automl.storage.open import open_store
from tests.racing import STUDY, Plan, change_champion, claim_versions, race, watch_champion
from tests.versions import NOW, publish

WRITERS = 16
Reports = dict[str, list[dict[str, Any]]]


@pytest.fixture(params=["file", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "home")
    return str(request.getfixturevalue("s3_store_uri"))


def with_champion(store: ObjectStore) -> Registry:
    """Return a registry with four versions, of which the first is the champion."""
    registry = Registry(store, STUDY)
    for run in "abcd":
        publish(registry, run)
    registry.promote(1, "a", "It is the first version.", NOW)
    return registry


def check_promotions(registry: Registry, reports: Reports, killed: int) -> None:
    """Compare the list of promotions with what the writers were told.

    Args:
        registry: after the race.
        reports: by process.
        killed: how many writers died; each may have recorded one more than it could tell.
    """
    listed = registry.promotions()
    assert list(listed) == list(range(1, len(listed) + 1))
    steps = list(listed.values())
    for before, after in pairwise(steps):
        assert after.from_version == before.to_version != after.to_version

    told = [entry for name, lines in reports.items() if name != "watcher" for entry in lines]
    recorded = {entry["number"]: entry for entry in told if entry.get("is_new")}
    assert len(recorded) == sum(bool(entry.get("is_new")) for entry in told)
    for number, entry in recorded.items():
        assert listed[number].who == entry["who"]
        expected = version_before(steps[: number - 1]) if entry["wanted"] is None else None
        assert listed[number].to_version == (entry["wanted"] or expected)
    for entry in told:
        if entry.get("is_new") is False:
            assert listed[entry["number"]].to_version == entry["wanted"]
    assert all(number == 1 for number in Counter(step.who for step in steps).values())
    untold = len(listed) - 1 - len(recorded)  # the first was there before the race
    assert 0 <= untold <= killed
    assert len(recorded) >= WRITERS // 2


def check_champion(registry: Registry, store: ObjectStore, reports: Reports) -> None:
    """Require that the watcher saw a change, and that the document names the last promotion."""
    (watched,) = reports["watcher"]
    assert watched["reads"] >= watched["changes"] >= 1
    champion = registry.repair_champion()
    assert champion.promotion == max(registry.promotions())
    assert store.get(f"models/{STUDY}/champion.json").data == champion.to_bytes()


@pytest.mark.parametrize(
    ("seconds", "kills"), [(3.0, 3), pytest.param(60.0, 40, marks=pytest.mark.soak)]
)
def test_processes_promote_and_roll_back_at_once(
    uri: str, tmp_path: Path, seconds: float, kills: int
) -> None:
    store = open_store(uri)
    registry = with_champion(store)
    folder = tmp_path / "reports"
    folder.mkdir()

    reports = race(Plan("change", uri, str(folder), WRITERS, seconds, kills))

    check_promotions(registry, reports, kills)
    check_champion(registry, store, reports)


def test_threads_promote_and_roll_back_at_once() -> None:
    store = MemoryObjectStore()
    registry = with_champion(store)
    reports: Reports = {name: [] for name in [*map(str, range(WRITERS)), "watcher"]}
    end_s, over = time.monotonic() + 2.0, threading.Event()

    with ThreadPoolExecutor(WRITERS + 1) as pool:
        writers = [
            pool.submit(change_champion, store, str(rank), end_s, reports[str(rank)].append)
            for rank in range(WRITERS)
        ]
        watcher = pool.submit(watch_champion, store, over.is_set, reports["watcher"].append)
        wait(writers)
        over.set()
    for future in (*writers, watcher):
        future.result()

    check_promotions(registry, reports, killed=0)
    check_champion(registry, store, reports)


def check_claims(reports: Reports, writers: int = WRITERS) -> None:
    claims = [(entry["run"], entry["version"]) for lines in reports.values() for entry in lines]
    versions = dict(claims)
    assert len(claims) == 8 * writers
    assert len(versions) == 4 * writers + 4
    assert all(versions[run] == version for run, version in claims)  # a run's number never changes
    assert sorted(versions.values()) == list(range(1, len(versions) + 1))  # no number twice, no gap


@pytest.mark.parametrize(
    ("uri", "writers"),
    # requests grow with the square of the writers
    [("file", WRITERS), ("s3", 6), pytest.param("s3", WRITERS, marks=pytest.mark.soak)],
    indirect=["uri"],
)
def test_processes_claim_versions_at_once(uri: str, writers: int, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()

    check_claims(race(Plan("claim", uri, str(folder), writers)), writers)


def test_threads_claim_versions_at_once() -> None:
    store = MemoryObjectStore()
    reports: Reports = {str(rank): [] for rank in range(WRITERS)}

    with ThreadPoolExecutor(WRITERS) as pool:
        for future in [
            pool.submit(claim_versions, store, name, lines.append)
            for name, lines in reports.items()
        ]:
            future.result()

    check_claims(reports)


class Counting(MemoryObjectStore):
    """Counts requests, and lets nobody write before all have looked what there is."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self._barrier, self._mine = barrier, threading.local()

    def get(self, key: str) -> StoredObject:
        self.requests["get"] += 1
        return super().get(key)

    def put_if_absent(self, key: str, data: bytes) -> str:
        if not getattr(self._mine, "has_waited", False):
            self._mine.has_waited = True
            self._barrier.wait(30)
        self.requests["put_if_absent"] += 1
        return super().put_if_absent(key, data)


def test_a_lost_race_for_a_version_costs_two_requests() -> None:
    store = Counting(threading.Barrier(WRITERS))

    with ThreadPoolExecutor(WRITERS) as pool:
        versions = list(
            pool.map(lambda rank: Registry(store, STUDY).claim_version(f"{rank}"), range(WRITERS))
        )

    lost = WRITERS * (WRITERS - 1) // 2  # all saw an empty registry: number n is tried n - 1 times
    assert sorted(versions) == list(range(1, WRITERS + 1))
    assert store.requests == {"put_if_absent": lost + WRITERS, "get": lost}
