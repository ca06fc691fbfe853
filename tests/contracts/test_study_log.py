"""What every study log must do; run on memory, a folder and a real S3 server."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from automl.domain.events import Event, RunOpened, TrialClaimed, TrialOpened
from automl.domain.study import Study, replay
from automl.errors import DamagedDataError, NewerSchemaError, StaleWriteError
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectStore
from automl.storage.open import open_store
from automl.storage.study_log import SEGMENT, ObjectStudyLog, StudyRecord

AT = datetime(2026, 1, 1, tzinfo=UTC)
PREFIX = "studies/digits/log"
OPENED = RunOpened(
    at=AT, run="a", deadline=AT + timedelta(hours=1), snapshot="s", spec_hash="h",
    generation_key="k", spec={"name": "digits"}, origin="test",
)  # fmt: skip


@pytest.fixture(params=["memory", "file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryObjectStore()
    if request.param == "file":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue("s3_store_uri"))


def log_on(store: ObjectStore) -> ObjectStudyLog:
    return ObjectStudyLog(store, PREFIX)


def ticket(n: int, worker: str = "w") -> TrialOpened:
    return TrialOpened(at=AT, n=n, run="a", worker=worker)


def claimed(n: int, attempt: int) -> TrialClaimed:
    return TrialClaimed(at=AT, n=n, attempt=attempt, run="a", worker=f"w{attempt}")


class TestStudyLogContract:
    def test_an_empty_log_has_no_events(self, store: ObjectStore) -> None:
        assert list(log_on(store).read()) == []

    def test_what_was_appended_is_read_in_order(self, store: ObjectStore) -> None:
        log = log_on(store)

        assert log.append([OPENED], expected_version=-1) == 0
        assert log.append([ticket(0), ticket(1)], expected_version=0) == 1

        assert list(log_on(store).read()) == [(0, OPENED), (1, ticket(0)), (1, ticket(1))]
        assert list(log.read(after=0)) == [(1, ticket(0)), (1, ticket(1))]
        assert list(log.read(after=1)) == []

    def test_a_stale_append_changes_nothing(self, store: ObjectStore) -> None:
        log = log_on(store)
        log.append([OPENED], expected_version=-1)
        log.append([ticket(0, "first")], expected_version=0)
        before = list(log.read())

        with pytest.raises(StaleWriteError, match="Version 1 of the study log exists already"):
            log.append([ticket(0, "late")], expected_version=0)

        assert list(log_on(store).read()) == before

    def test_of_eight_racing_writers_none_loses_an_event(self, store: ObjectStore) -> None:
        log_on(store).append([OPENED], expected_version=-1)
        barrier = threading.Barrier(8)

        def write(writer: int) -> None:
            record = StudyRecord(log_on(store))
            barrier.wait()
            for _ in range(3):
                record.commit(lambda study: [ticket(len(study.trials), f"w{writer}")])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))

        events = list(log_on(store).read())
        assert [version for version, _ in events] == list(range(25))
        workers = [trial.worker for trial in replay(events).trials]
        assert sorted(workers) == sorted(f"w{writer}" for writer in range(8) for _ in range(3))

    def test_sealed_segments_give_the_same_replay(self, store: ObjectStore) -> None:
        log, written = log_on(store), []
        for version in range(SEGMENT + 5):
            events: list[Event] = [claimed(0, version)] if version > 1 else [OPENED, ticket(0)]
            events = [ticket(1)] if version == 1 else events
            log.append(events, expected_version=version - 1)
            written += [(version, event) for event in events]

        assert store.get(f"{PREFIX}/segments/{0:012d}.json").data
        assert list(log_on(store).read()) == written
        assert list(log_on(store).read(after=42)) == [row for row in written if row[0] > 42]
        fresh = StudyRecord(log_on(store)).refresh()
        assert fresh == replay(written)
        assert (fresh.version, fresh.trials[0].attempt) == (SEGMENT + 4, SEGMENT + 4)

    def test_a_lost_segment_is_made_up_for_by_its_versions(self, store: ObjectStore) -> None:
        log = log_on(store)
        for version in range(SEGMENT + 1):
            event = claimed(0, version) if version > 1 else [OPENED, ticket(0)][version]
            log.append([event], expected_version=version - 1)
        with_segment = list(log.read())
        store.delete(f"{PREFIX}/segments/{0:012d}.json")

        assert list(log_on(store).read()) == with_segment

    def test_a_newer_schema_is_refused_with_the_remedy(self, store: ObjectStore) -> None:
        log = log_on(store)
        log.append([OPENED], expected_version=-1)
        newer = {"schema": 2, "version": 1, "nonce": "n", "events": []}
        store.put(f"{PREFIX}/{1:012d}.json", json.dumps(newer).encode())

        with pytest.raises(NewerSchemaError, match=r"0001\.json has schema 2.*upgrade"):
            log.read()

    def test_an_unknown_event_is_refused_with_the_remedy(self, store: ObjectStore) -> None:
        log = log_on(store)
        log.append([OPENED], expected_version=-1)
        event = {"type": "trial_celebrated", "at": AT.isoformat(), "n": 0}
        document = {"schema": 1, "version": 1, "nonce": "n", "events": [event]}
        store.put(f"{PREFIX}/{1:012d}.json", json.dumps(document).encode())

        with pytest.raises(NewerSchemaError, match=r"Version 1 of the study log.*upgrade"):
            log.read()

    @pytest.mark.parametrize("damage", [b"", b'{"schema": 1, "ev', b"[]", b'{"events": []}'])
    def test_a_damaged_version_is_named(self, store: ObjectStore, damage: bytes) -> None:
        log = log_on(store)
        log.append([OPENED], expected_version=-1)
        log.append([ticket(0)], expected_version=0)
        store.put(f"{PREFIX}/{1:012d}.json", damage)

        with pytest.raises(DamagedDataError, match=f"{PREFIX}/{1:012d}.json"):
            log_on(store).read()

    def test_a_version_without_events_is_named(self, store: ObjectStore) -> None:
        store.put(f"{PREFIX}/{0:012d}.json", b'{"schema": 1, "events": 7}')

        with pytest.raises(DamagedDataError, match="Version 0 of the study log has no events"):
            log_on(store).read()


def test_a_record_that_decides_on_nothing_writes_nothing() -> None:
    store = MemoryObjectStore()

    assert StudyRecord(log_on(store)).commit(lambda _: ()) == Study()
    assert not list(store.list(""))
