"""Leases, on every kind of home."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from automl.domain.settings import Settings
from automl.errors import (
    ConfigError,
    DamagedDataError,
    LeaseLostError,
    NewerSchemaError,
    NotFoundError,
    PreconditionFailedError,
    StorageError,
)
from automl.storage.home import Home
from automl.storage.leases import Lease, Leases
from automl.storage.memory import MemoryObjectStore
from automl.storage.open import open_home
from tests.contention import STUDY, contest
from tests.homes import HomeUnderTest

KEY = "studies/digits/leases/7.json"


def seconds(home: Home, fine: float, whole: float) -> float:
    """Return how long to wait: S3 tells whole seconds, other clocks are finer."""
    return whole if home.store.uri.startswith("s3://") else fine


def acquired(leases: Leases, name: str, holder: str) -> Lease:
    lease = leases.acquire(name, holder)
    assert lease is not None
    return lease


class TestLeaseContract:
    def test_a_lease_has_one_holder(self, home: Home) -> None:
        leases = home.leases("digits")
        acquired(leases, "7", "anna")

        assert leases.acquire("7", "bert") is None
        assert leases.holder("7") == "anna"
        assert leases.is_live("7")
        assert not leases.is_live("8")
        assert acquired(leases, "8", "bert")

    def test_a_released_lease_is_free(self, home: Home) -> None:
        leases = home.leases("digits")
        lease = acquired(leases, "7", "anna")
        lease.renew()
        lease.release()

        assert leases.holder("7") is None
        assert acquired(leases, "7", "bert")

    def test_an_expired_lease_is_free_and_its_owner_learns_it(self, home: Home) -> None:
        leases = home.leases("digits", ttl_s=0.2)
        old = acquired(leases, "7", "anna")
        time.sleep(seconds(home, 0.3, 1.3))

        assert not leases.is_live("7")
        new = acquired(leases, "7", "bert")
        with pytest.raises(LeaseLostError, match=r"leases/7\.json"):
            old.renew()
        old.release()
        new.renew()
        assert home.leases("digits").holder("7") == "bert"

    def test_the_same_holder_takes_its_lease_over(self, home: Home) -> None:
        leases = home.leases("digits")
        old = acquired(leases, "7", "anna")
        new = acquired(leases, "7", "anna")

        with pytest.raises(LeaseLostError):
            old.renew()
        assert old.lost.is_set()
        new.renew()

    def test_of_eight_contenders_one_wins(self, home: Home) -> None:
        leases, barrier = home.leases("digits"), threading.Barrier(8)

        def contend(number: int) -> Lease | None:
            barrier.wait()
            return leases.acquire("race", f"holder-{number}")

        with ThreadPoolExecutor(8) as pool:
            winners = [lease for lease in pool.map(contend, range(8)) if lease is not None]

        assert len(winners) == 1

    def test_a_lease_that_is_kept_alive_outlives_its_time(self, home: Home) -> None:
        leases = home.leases("digits", ttl_s=seconds(home, 1.5, 2.0))
        lease = acquired(leases, "7", "anna")

        with lease.keep_alive() as alive:
            limit_s = time.monotonic() + seconds(home, 2.0, 3.0)
            while time.monotonic() < limit_s:
                assert leases.acquire("7", "bert") is None
                time.sleep(0.2)
            assert not alive.lost.is_set()
        lease.release()

        assert acquired(leases, "7", "bert")

    def test_the_renewal_of_a_stale_holder_changes_nothing(self, place: HomeUnderTest) -> None:
        leases = place.home.leases("digits", ttl_s=0.2)
        old = acquired(leases, "7", "anna")
        time.sleep(seconds(place.home, 0.3, 1.3))
        acquired(leases, "7", "bert")
        before = place.records.get(KEY)

        for _ in range(2):
            with pytest.raises(LeaseLostError):
                old.renew()
        old.release()

        assert place.records.get(KEY) == before

    def test_a_renewal_changes_the_etag_and_the_time(self, place: HomeUnderTest) -> None:
        lease = acquired(place.home.leases("digits"), "7", "anna")
        before = place.records.get(KEY)
        time.sleep(seconds(place.home, 0.05, 1.1))
        lease.renew()
        after = place.records.get(KEY)

        assert after.etag != before.etag
        assert after.modified > before.modified

    def test_the_clock_is_the_one_that_dates_leases(self, place: HomeUnderTest) -> None:
        before = place.records.now()
        acquired(place.home.leases("digits"), "7", "anna")
        after = place.records.now()

        assert before.tzinfo is UTC
        tolerance = timedelta(seconds=1)
        assert before - tolerance <= place.records.get(KEY).modified <= after + tolerance

    def test_leases_of_two_studies_are_apart(self, home: Home) -> None:
        acquired(home.leases("digits"), "7", "anna")

        assert home.leases("letters").holder("7") is None
        assert acquired(home.leases("letters"), "7", "bert")

    @pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema": 1}', b"\xff"])
    def test_a_damaged_record_is_named(self, place: HomeUnderTest, data: bytes) -> None:
        place.records.put_if_absent(KEY, data)

        with pytest.raises(DamagedDataError, match=r"leases/7\.json in .* is not a lease"):
            place.home.leases("digits").acquire("7", "anna")

    def test_a_record_of_a_newer_version_is_refused(self, place: HomeUnderTest) -> None:
        place.records.put_if_absent(KEY, json.dumps({"schema": 2}).encode())

        with pytest.raises(NewerSchemaError, match="upgrade"):
            place.home.leases("digits").holder("7")

    def test_of_sixteen_processes_one_gets_each_lease(self, settings: Settings) -> None:
        winners = contest("acquire", settings, rounds=40)

        assert {len(ranks) for ranks in winners} == {1}
        leases = open_home(settings).leases(STUDY, ttl_s=3600)
        last = len(winners) - 1
        assert leases.holder(str(last)) == str(winners[last][0])


class TestRecordsContract:
    def test_what_was_put_can_be_got(self, place: HomeUnderTest) -> None:
        etag = place.records.put_if_absent("a/b", b"\x00one")

        stored = place.records.get("a/b")
        assert (stored.data, stored.etag, stored.modified.tzinfo) == (b"\x00one", etag, UTC)

    def test_a_missing_record_is_not_found(self, place: HomeUnderTest) -> None:
        with pytest.raises(NotFoundError, match="no a/b in"):
            place.records.get("a/b")

    def test_put_if_absent_writes_once(self, place: HomeUnderTest) -> None:
        place.records.put_if_absent("a/b", b"one")

        with pytest.raises(PreconditionFailedError, match="a/b exists in"):
            place.records.put_if_absent("a/b", b"two")
        assert place.records.get("a/b").data == b"one"

    def test_put_if_match_writes_over_what_was_read(self, place: HomeUnderTest) -> None:
        first = place.records.put_if_absent("a/b", b"one")
        second = place.records.put_if_match("a/b", b"two", first)

        assert (place.records.get("a/b").data, place.records.get("a/b").etag) == (b"two", second)

    def test_a_stale_put_if_match_changes_nothing(self, place: HomeUnderTest) -> None:
        stale = place.records.put_if_absent("a/b", b"one")
        place.records.put_if_match("a/b", b"two", stale)
        before = place.records.get("a/b")

        with pytest.raises(PreconditionFailedError, match="has changed or is gone"):
            place.records.put_if_match("a/b", b"three", stale)
        assert place.records.get("a/b") == before

    def test_put_if_match_does_not_create(self, place: HomeUnderTest) -> None:
        with pytest.raises(PreconditionFailedError, match="has changed or is gone"):
            place.records.put_if_match("a/b", b"two", "etag")
        with pytest.raises(NotFoundError):
            place.records.get("a/b")

    @pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/"])
    def test_what_is_no_key_is_refused(self, place: HomeUnderTest, key: str) -> None:
        with pytest.raises(ConfigError, match="not a key"):
            place.records.put_if_absent(key, b"")
        with pytest.raises(ConfigError, match="not a key"):
            place.records.get(key)


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time


class FlakyStore(MemoryObjectStore):
    """A store whose writes can fail, or succeed without an answer, or hang."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.is_down = self.loses_replies = False
        self.hang_s = 0.0

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        time.sleep(self.hang_s)
        if self.is_down:
            raise StorageError("down")
        etag = super().put_if_match(key, data, etag)
        if self.loses_replies:
            raise StorageError("no reply")
        return etag


class TestExpiry:
    def test_a_lease_lives_exactly_its_time_by_the_clock_of_the_store(self) -> None:
        clock = Clock()
        leases = Leases(MemoryObjectStore(clock), "leases", ttl_s=60)
        lease = acquired(leases, "7", "anna")

        clock.time += timedelta(seconds=60)
        assert leases.is_live("7")
        clock.time += timedelta(seconds=1)
        assert not leases.is_live("7")
        lease.renew()  # nobody has taken it
        assert leases.is_live("7")

    def test_a_renewal_beats_a_takeover_that_saw_the_lease_expired(self) -> None:
        clock = Clock()
        store = MemoryObjectStore(clock)
        leases = Leases(store, "leases")
        lease = acquired(leases, "7", "anna")
        seen = store.get("leases/7.json").etag
        lease.renew()

        assert store.get("leases/7.json").etag != seen


class TestTrouble:
    @pytest.fixture
    def store(self) -> FlakyStore:
        return FlakyStore(Clock())

    def test_a_renewal_without_a_reply_does_not_lose_the_lease(self, store: FlakyStore) -> None:
        lease = acquired(Leases(store, "leases"), "7", "anna")
        store.loses_replies = True
        for _ in range(3):
            with pytest.raises(StorageError, match="no reply"):
                lease.renew()
        store.loses_replies = False

        lease.renew()
        assert not lease.lost.is_set()

    def test_a_lease_that_cannot_be_renewed_is_lost_after_half_its_time(
        self, store: FlakyStore
    ) -> None:
        lease = acquired(Leases(store, "leases", ttl_s=0.8), "7", "anna")
        store.is_down = True
        started_s = time.monotonic()

        with lease.keep_alive() as alive:
            assert alive.lost.wait(5)
        assert 0.3 < time.monotonic() - started_s < 2

    def test_a_short_outage_loses_nothing(self, store: FlakyStore) -> None:
        lease = acquired(Leases(store, "leases", ttl_s=2), "7", "anna")
        store.is_down = True

        with lease.keep_alive() as alive:
            time.sleep(0.6)
            store.is_down = False
            assert not alive.lost.wait(1.2)

    def test_a_renewal_that_hangs_does_not_hide_the_loss(self, store: FlakyStore) -> None:
        lease = acquired(Leases(store, "leases", ttl_s=0.8), "7", "anna")
        store.hang_s = 1.5

        with lease.keep_alive() as alive:
            assert alive.lost.wait(1.2)

    def test_a_takeover_sets_lost(self, store: FlakyStore) -> None:
        leases = Leases(store, "leases", ttl_s=2)

        with acquired(leases, "7", "anna").keep_alive() as alive:
            acquired(leases, "7", "anna")
            assert alive.lost.wait(1.5)
