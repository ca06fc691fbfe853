"""Leases, on every store."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from automl.errors import DamagedDataError, LeaseLostError, NewerSchemaError, StorageError
from automl.storage.leases import Lease, Leases
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectStore
from automl.storage.open import open_store


@pytest.fixture(params=["memory", "file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryObjectStore()
    if request.param == "file":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue("s3_store_uri"))


def acquired(leases: Leases, name: str, holder: str) -> Lease:
    lease = leases.acquire(name, holder)
    assert lease is not None
    return lease


class TestLeaseContract:
    def test_a_lease_has_one_holder(self, store: ObjectStore) -> None:
        leases = Leases(store, "leases")
        acquired(leases, "7", "anna")

        assert leases.acquire("7", "bert") is None
        assert leases.holder("7") == "anna"
        assert leases.is_live("7")
        assert not leases.is_live("8")
        assert acquired(leases, "8", "bert")

    def test_a_released_lease_is_free(self, store: ObjectStore) -> None:
        leases = Leases(store, "leases")
        lease = acquired(leases, "7", "anna")
        lease.renew()
        lease.release()

        assert leases.holder("7") is None
        assert acquired(leases, "7", "bert")

    def test_an_expired_lease_is_free_and_its_owner_learns_it(self, store: ObjectStore) -> None:
        leases = Leases(store, "leases", ttl_s=0.2)
        old = acquired(leases, "7", "anna")
        time.sleep(1.3)

        assert not leases.is_live("7")
        new = acquired(leases, "7", "bert")
        with pytest.raises(LeaseLostError, match=r"leases/7\.json"):
            old.renew()
        old.release()
        new.renew()
        assert Leases(store, "leases").holder("7") == "bert"

    def test_the_same_holder_takes_its_lease_over(self, store: ObjectStore) -> None:
        leases = Leases(store, "leases")
        old = acquired(leases, "7", "anna")
        new = acquired(leases, "7", "anna")

        with pytest.raises(LeaseLostError):
            old.renew()
        assert old.lost.is_set()
        new.renew()

    def test_of_eight_contenders_one_wins(self, store: ObjectStore) -> None:
        leases, barrier = Leases(store, "leases"), threading.Barrier(8)

        def contend(number: int) -> Lease | None:
            barrier.wait()
            return leases.acquire("race", f"holder-{number}")

        with ThreadPoolExecutor(8) as pool:
            winners = [lease for lease in pool.map(contend, range(8)) if lease is not None]

        assert len(winners) == 1

    def test_a_lease_that_is_kept_alive_outlives_its_time(self, store: ObjectStore) -> None:
        leases = Leases(store, "leases", ttl_s=2)
        lease = acquired(leases, "7", "anna")

        with lease.keep_alive() as alive:
            limit_s = time.monotonic() + 3.0
            while time.monotonic() < limit_s:
                assert leases.acquire("7", "bert") is None
                time.sleep(0.2)
            assert not alive.lost.is_set()
        lease.release()

        assert acquired(leases, "7", "bert")


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

    @pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema": 1}', b"\xff"])
    def test_damaged_records_are_named(self, store: FlakyStore, data: bytes) -> None:
        store.put("leases/7.json", data)

        with pytest.raises(DamagedDataError, match=r"leases/7\.json in memory: is not a lease"):
            Leases(store, "leases").acquire("7", "anna")

    def test_a_record_of_a_newer_version_is_refused(self, store: FlakyStore) -> None:
        store.put("leases/7.json", json.dumps({"schema": 2}).encode())

        with pytest.raises(NewerSchemaError, match="upgrade"):
            Leases(store, "leases").holder("7")
