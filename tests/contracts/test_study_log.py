"""What every study log must do; run on memory, a folder, both databases and a real S3 server."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from automl.domain.candidate import Candidate
from automl.domain.events import (
    Event,
    RunOpened,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
)
from automl.domain.settings import Settings
from automl.domain.study import Study, replay
from automl.domain.trial import Measurement, Outcome, TrialState
from automl.errors import DamagedDataError, NewerSchemaError, StaleWriteError
from automl.storage.home import Home
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectStore, StoredObject
from automl.storage.open import open_home
from automl.storage.study_log import SEGMENT, ObjectStudyLog, StudyRecord
from tests.contention import contest
from tests.homes import HomeUnderTest, home_under_test

AT = datetime(2026, 1, 1, tzinfo=UTC)
PREFIX = "studies/digits/log"
OPENED = RunOpened(
    at=AT, run="a", deadline=AT + timedelta(hours=1), snapshot="s", spec_hash="h",
    generation_key="k", spec={"name": "digits"}, origin="test",
)  # fmt: skip


def log_on(store: ObjectStore) -> ObjectStudyLog:
    return ObjectStudyLog(store, PREFIX)


def ticket(n: int, worker: str = "w") -> TrialOpened:
    return TrialOpened(at=AT, n=n, run="a", worker=worker)


def claimed(n: int, attempt: int) -> TrialClaimed:
    return TrialClaimed(at=AT, n=n, attempt=attempt, run="a", worker=f"w{attempt}")


def proposed(n: int) -> TrialProposed:
    candidate = Candidate(genotype="{}", hyperparameters={})
    return TrialProposed(at=AT, n=n, candidate=candidate, based_on=1, strategy="random")


def finished(n: int, attempt: int, score: float) -> TrialFinished:
    return TrialFinished(
        at=AT, n=n, attempt=attempt, run="a", outcome=Outcome.COMPLETED,
        measurement=Measurement(score=score, loss=-score, weights="k"),
    )  # fmt: skip


def commit(record: StudyRecord, event: Event) -> None:
    record.commit(lambda _: [event])


def fill_a_segment(log: ObjectStudyLog) -> None:
    """Write as many versions as a segment takes, and one more."""
    events: list[Event] = [OPENED, ticket(0)]
    events += [claimed(0, version) for version in range(2, SEGMENT + 1)]
    for version, event in enumerate(events):
        log.append([event], expected_version=version - 1)


def check_race(settings: Settings) -> None:
    winners = contest("append", settings)

    assert {len(ranks) for ranks in winners} == {1}
    log = open_home(settings).study_log("digits").read()
    assert [version for version, _ in log] == list(range(len(winners)))
    assert [[int(event.worker)] for _, event in log if isinstance(event, TrialOpened)] == winners


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
    def test_an_empty_log_has_no_events(self, home: Home) -> None:
        assert list(home.study_log("digits").read()) == []

    def test_what_was_appended_is_read_in_order(self, home: Home) -> None:
        log = home.study_log("digits")

        assert log.append([OPENED], expected_version=-1) == 0
        assert log.append([ticket(0), ticket(1)], expected_version=0) == 1

        assert list(home.study_log("digits").read()) == [
            (0, OPENED),
            (1, ticket(0)),
            (1, ticket(1)),
        ]
        assert list(log.read(after=0)) == [(1, ticket(0)), (1, ticket(1))]
        assert list(log.read(after=1)) == []

    def test_a_stale_append_changes_nothing(self, home: Home) -> None:
        log = home.study_log("digits")
        log.append([OPENED], expected_version=-1)
        log.append([ticket(0, "first")], expected_version=0)
        before = list(log.read())

        with pytest.raises(StaleWriteError, match="Version 1 of the study log exists already"):
            log.append([ticket(0, "late")], expected_version=0)

        assert list(home.study_log("digits").read()) == before

    def test_of_eight_racing_writers_none_loses_an_event(self, home: Home) -> None:
        home.study_log("digits").append([OPENED], expected_version=-1)
        barrier = threading.Barrier(8)

        def write(writer: int) -> None:
            record = StudyRecord(home.study_log("digits"))
            barrier.wait()
            for _ in range(3):
                record.commit(lambda study: [ticket(len(study.trials), f"w{writer}")])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))

        events = list(home.study_log("digits").read())
        assert [version for version, _ in events] == list(range(25))
        workers = [trial.worker for trial in replay(events).trials]
        assert sorted(workers) == sorted(f"w{writer}" for writer in range(8) for _ in range(3))

    def test_many_versions_give_the_same_replay(self, home: Home) -> None:
        log = home.study_log("digits")
        written: list[tuple[int, Event]] = [(0, OPENED), (1, ticket(0))]
        written += [(version, claimed(0, version)) for version in range(2, SEGMENT + 5)]
        for version, event in written:
            log.append([event], expected_version=version - 1)

        assert list(home.study_log("digits").read()) == written
        assert list(home.study_log("digits").read(after=42)) == written[43:]
        fresh = StudyRecord(home.study_log("digits")).refresh()
        assert fresh == replay(written)
        assert (fresh.version, fresh.trials[0].attempt) == (SEGMENT + 4, SEGMENT + 4)

    def test_a_version_may_hold_any_text(self, home: Home) -> None:
        event = ticket(0, "ünïcödé \0 \u2028 '\" 日本 🌱" + "x" * 100_000)
        home.study_log("digits").append([event], expected_version=-1)

        assert list(home.study_log("digits").read()) == [(0, event)]

    def test_the_result_of_a_stale_attempt_changes_nothing(self, home: Home) -> None:
        record = StudyRecord(home.study_log("digits"))
        for event in (OPENED, ticket(0), proposed(0), claimed(0, 1), claimed(0, 2)):
            commit(record, event)
        before = record.study.trials

        record.commit(lambda _: [finished(0, attempt=1, score=0.9)])
        assert record.study.trials == before
        record.commit(lambda _: [finished(0, attempt=2, score=0.5)])

        (trial,) = StudyRecord(home.study_log("digits")).refresh().trials
        assert trial.state is TrialState.FINISHED
        assert (trial.attempt, trial.measurement.score) == (2, 0.5)

    def test_studies_are_apart(self, home: Home) -> None:
        home.study_log("digits").append([OPENED], expected_version=-1)
        home.study_log("a").append([OPENED], expected_version=-1)
        home.study_log("a").append([ticket(0)], expected_version=0)

        assert [version for version, _ in home.study_log("digits").read()] == [0]
        assert home.study_names() == ["a", "digits"]

    def test_a_study_without_events_has_no_name(self, home: Home) -> None:
        home.study_log("digits").read()
        assert home.leases("digits").acquire("run", "anna") is not None

        assert home.study_names() == []

    def test_a_newer_schema_is_refused_with_the_remedy(self, place: HomeUnderTest) -> None:
        log = place.home.study_log("digits")
        log.append([OPENED], expected_version=-1)
        place.plant_version("digits", 1, "[]", schema=2)

        name = re.escape(place.name_of("digits", 1))
        with pytest.raises(NewerSchemaError, match=rf"{name}.* has schema 2.*upgrade"):
            log.read()

    def test_an_unknown_event_is_refused_with_the_remedy(self, place: HomeUnderTest) -> None:
        log = place.home.study_log("digits")
        log.append([OPENED], expected_version=-1)
        event = {"type": "trial_celebrated", "at": AT.isoformat(), "n": 0}
        place.plant_version("digits", 1, json.dumps([event]))

        with pytest.raises(NewerSchemaError, match=r"Version 1 of the .*log.*upgrade"):
            log.read()

    @pytest.mark.parametrize("events", ["", '[{"type": "trial_op', "[}"])
    def test_a_damaged_version_is_named(self, place: HomeUnderTest, events: str) -> None:
        log = place.home.study_log("digits")
        log.append([OPENED], expected_version=-1)
        log.append([ticket(0)], expected_version=0)
        place.plant_version("digits", 1, events)

        name = re.escape(place.name_of("digits", 1))
        with pytest.raises(DamagedDataError, match=rf"{name}.*restore it from a backup"):
            place.home.study_log("digits").read()

    @pytest.mark.parametrize("events", ["7", "{}", "null"])
    def test_a_version_without_events_is_named(self, place: HomeUnderTest, events: str) -> None:
        place.home.study_log("digits").append([OPENED], expected_version=-1)
        place.plant_version("digits", 0, events)

        with pytest.raises(DamagedDataError, match=r"Version 0 of the .*log.*restore it"):
            place.home.study_log("digits").read()

    def test_of_sixteen_processes_one_writes_each_version(self, settings: Settings) -> None:
        check_race(settings)

    @pytest.mark.soak
    def test_of_sixteen_processes_one_writes_each_version_in_many_rounds(
        self, settings: Settings
    ) -> None:
        check_race(settings)


class TestObjectStudyLog:
    @pytest.fixture(params=["memory", "file", "s3"])
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
        return home_under_test(request.param, request, tmp_path).home.store

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
        fill_a_segment(log)
        with_segment = list(log.read())
        store.delete(f"{PREFIX}/segments/{0:012d}.json")

        assert list(log_on(store).read()) == with_segment

    @pytest.mark.parametrize(
        "damage", [b"", b'{"schema": 1, "fir', b'{"schema": 1, "first": 0, "versions": [{}]}']
    )
    def test_a_damaged_segment_is_made_up_for_by_its_versions(
        self, store: ObjectStore, damage: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        log = log_on(store)
        fill_a_segment(log)
        with_segment = list(log.read())
        key = f"{PREFIX}/segments/{0:012d}.json"
        store.put(key, damage)

        assert list(log_on(store).read()) == with_segment
        assert key in caplog.text

    @pytest.mark.parametrize("damage", [b"", b'{"schema": 1, "ev', b"[]", b'{"events": []}'])
    def test_a_damaged_object_is_named(self, store: ObjectStore, damage: bytes) -> None:
        log = log_on(store)
        log.append([OPENED], expected_version=-1)
        log.append([ticket(0)], expected_version=0)
        store.put(f"{PREFIX}/{1:012d}.json", damage)

        with pytest.raises(DamagedDataError, match=f"{PREFIX}/{1:012d}.json"):
            log_on(store).read()

    @pytest.mark.parametrize("lost", [1, SEGMENT - 1])
    def test_a_missing_version_is_named(self, store: ObjectStore, lost: int) -> None:
        log = ObjectStudyLog(store, PREFIX)
        log.append([OPENED, ticket(0)], expected_version=-1)
        for version in range(1, SEGMENT + 1):
            log.append([claimed(0, version)], expected_version=version - 1)
        for number in (lost, "segments/000000000000"):
            name = number if isinstance(number, str) else f"{number:012d}"
            store.delete(f"{PREFIX}/{name}.json")
        if lost == SEGMENT - 1:  # then only the next hundred tells
            store.put(f"{PREFIX}/segments/{SEGMENT:012d}.json", b"{}")

        with pytest.raises(DamagedDataError, match=rf"{lost:012d}\.json in .* is missing"):
            ObjectStudyLog(store, PREFIX).read()


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


def test_a_process_that_was_frozen_while_it_lost_a_race_goes_on_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryObjectStore()
    rival = log_on(store)
    rival.append([OPENED], expected_version=-1)
    frozen_s, pauses_s = [0.0], list[float]()

    class FrozenLog(ObjectStudyLog):
        def append(self, events: Sequence[Event], *, expected_version: int) -> int:
            if not frozen_s[0]:
                frozen_s[0] = 8 * 3600.0
                rival.append([ticket(0)], expected_version=expected_version)
            return super().append(events, expected_version=expected_version)

    monkeypatch.setattr(time, "monotonic", lambda: frozen_s[0])
    monkeypatch.setattr(time, "sleep", pauses_s.append)
    monkeypatch.setattr(random, "uniform", lambda _, most: most)

    study = StudyRecord(FrozenLog(store, PREFIX)).commit(lambda s: [ticket(len(s.trials))])

    assert len(study.trials) == 2
    assert len(pauses_s) == 1
    assert 0 < pauses_s[0] < 5
