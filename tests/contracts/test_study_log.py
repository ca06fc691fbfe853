"""What every study log must do; run on memory, a folder and a real S3 server."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from automl.domain.candidate import Candidate
from automl.domain.events import Event, RunOpened, TrialClaimed, TrialOpened, TrialProposed
from automl.domain.study import Study, replay
from automl.errors import DamagedDataError, NewerSchemaError, StaleWriteError
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectStore, StoredObject
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


class CountingStore(MemoryObjectStore):
    """Counts the requests that a study log makes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def get(self, key: str) -> StoredObject:
        self.count += 1
        return super().get(key)

    def put_if_absent(self, key: str, data: bytes) -> str:
        self.count += 1
        return super().put_if_absent(key, data)


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


def test_a_record_keeps_the_state_of_each_ticket_until_its_trial_is_proposed() -> None:
    store = MemoryObjectStore()
    log, record = log_on(store), StudyRecord(log_on(store))
    written: list[Event] = [OPENED, ticket(0), ticket(1), claimed(0, 1)]
    for version, event in enumerate(written):
        log.append([event], expected_version=version - 1)
    candidate = Candidate(genotype="{}", hyperparameters={})

    record.refresh()
    assert record.ticket(0) == replay(enumerate(written[:2]))
    assert record.ticket(1) == replay(enumerate(written[:3]))
    log.append(
        [TrialProposed(at=AT, n=0, candidate=candidate, based_on=1, strategy="random"), ticket(2)],
        expected_version=3,
    )
    study = record.refresh()

    assert record.ticket(1) == replay(enumerate(written[:3]))
    assert record.ticket(2) == study
    with pytest.raises(KeyError):
        record.ticket(0)
    cold = StudyRecord(log_on(store))
    assert cold.refresh() == study
    assert cold.ticket(1) == record.ticket(1)


def test_a_warm_claim_reads_no_more_of_a_long_log_than_of_a_short_one() -> None:
    def requests(length: int) -> int:
        store = CountingStore()
        log, record = log_on(store), StudyRecord(log_on(store))
        log.append([OPENED], expected_version=-1)
        log.append([ticket(0)], expected_version=0)
        for version in range(2, length):
            log.append([claimed(0, version)], expected_version=version - 1)
        record.refresh()
        store.count = 0
        record.commit(lambda study: [ticket(len(study.trials))] if len(study.trials) < 2 else ())
        other = record.ticket(1)
        assert other.version == length
        return store.count

    assert requests(5) == requests(2 * SEGMENT + 5)
