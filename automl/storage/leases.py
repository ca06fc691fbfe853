"""Leases: who works on something, until when, by the store's clock.

A lease is a small record beside the log. Every write of it has a nonce of its own: so its etag
changes with each renewal, and a writer recognises its write when the reply to it was lost.
"""

from __future__ import annotations

import json
import logging
import math
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from automl.domain.layout import lease_key
from automl.errors import (
    DamagedDataError,
    LeaseLostError,
    NewerSchemaError,
    NotFoundError,
    PreconditionFailedError,
    StorageError,
)
from automl.storage.objects import StoredObject

SCHEMA = 1
TTL_S = 60.0
_TRIES = 20  # races that may be lost in a row
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Record:
    """Record of a lease, as it is stored.

    Attributes:
        name: what is leased.
        holder: who has, or had, the lease.
        nonce: unique to this write of the record.
        ttl_s: how long the lease lives from this write on.
        released: whether the holder gave it back.
    """

    name: str
    holder: str
    nonce: str
    ttl_s: float
    released: bool = False

    def to_bytes(self) -> bytes:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> _Record:
        try:
            document = json.loads(data)
            schema = document["schema"]
            if schema == SCHEMA:
                return cls(
                    str(document["name"]),
                    str(document["holder"]),
                    str(document["nonce"]),
                    float(document.get("ttl_s", TTL_S)),  # not in the first records
                    bool(document["released"]),
                )
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedDataError(
                f"{where} is not a lease.", "delete it when nobody works on it"
            ) from error
        raise NewerSchemaError(
            f"{where} has schema {schema}, and this version reads {SCHEMA}.",
            "it was written by a newer version; upgrade this worker",
        )


class Records(Protocol):
    """Small records with conditional writes and a clock; every object store is one.

    The methods behave as those of `automl.storage.objects.ObjectStore` do.
    """

    @property
    def uri(self) -> str:
        """Place where the records are kept; it holds no secrets."""

    def get(self, key: str) -> StoredObject:
        """Return the record under `key`; raise NotFoundError if there is none."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a record that does not exist yet, or raise PreconditionFailedError."""

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Write a record that still has `etag`, or raise PreconditionFailedError."""

    def now(self) -> datetime:
        """Return the present time in UTC by the clock that also sets `modified`."""


class Leases:
    """The leases below a prefix.

    Args:
        store: where they are kept.
        prefix: their folder.
        ttl_s: how long leases that are acquired here live without being renewed.
        clock: this process's monotonic clock, in seconds.
    """

    def __init__(
        self,
        store: Records,
        prefix: str,
        ttl_s: float = TTL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._prefix, self._ttl_s, self._clock = store, prefix, ttl_s, clock

    def acquire(
        self, name: str, holder: str, patience_s: Callable[[str], float] = lambda _: math.inf
    ) -> Lease | None:
        """Return the lease if it is free, released, expired or the holder's own, else None.

        A holder that asks again takes it over: its earlier lease object loses it.

        Args:
            name: what is leased.
            holder: who asks.
            patience_s: says of another holder for how many seconds since the last write its lease
                counts as live at most.

        Raises:
            StorageError: too many others try at once, or the store is in trouble.
        """
        wanted = _Record(name, holder, uuid.uuid4().hex, self._ttl_s)
        key, data = self._key(name), wanted.to_bytes()
        for attempt in range(_TRIES):
            asked_s = self._clock()
            stored, current = self._read(name)
            try:
                if stored is None or current is None:
                    etag = self._store.put_if_absent(key, data)
                elif current.nonce == wanted.nonce:  # ours; its reply was lost
                    etag = stored.etag
                elif current.holder != holder and self._is_live(
                    stored, current, patience_s(current.holder)
                ):
                    return None
                else:
                    etag = self._store.put_if_match(key, data, stored.etag)
            except PreconditionFailedError:
                time.sleep(random.uniform(0, 0.02 * (attempt + 1)))  # noqa: S311 - no secret
                continue
            held = Held(etag, asked_s, self._ttl_s)
            return Lease(self._store, key, wanted, held, self._clock)
        raise StorageError(
            f"The lease {key} in {self._store.uri} is contested by too many.", "try again"
        )

    def is_live(self, name: str) -> bool:
        """Return whether somebody holds the lease now."""
        return self.holder(name) is not None

    def holder(self, name: str) -> str | None:
        """Return who holds the lease now, or None."""
        tenure = self.tenure(name)
        return None if tenure is None else tenure.holder

    def tenure(self, name: str) -> Tenure | None:
        """Return who holds the lease now and until when unless it is renewed, or None."""
        stored, current = self._read(name)
        if stored is None or current is None or not self._is_live(stored, current):
            return None
        return Tenure(current.holder, stored.modified, current.ttl_s)

    def _is_live(self, stored: StoredObject, record: _Record, most_s: float = math.inf) -> bool:
        age = self._store.now() - stored.modified if not record.released else None
        return age is not None and age <= timedelta(seconds=min(record.ttl_s, most_s))

    def _read(self, name: str) -> tuple[StoredObject | None, _Record | None]:
        key = self._key(name)
        try:
            stored = self._store.get(key)
        except NotFoundError:
            return None, None
        return stored, _Record.from_bytes(stored.data, f"{key} in {self._store.uri}")

    def _key(self, name: str) -> str:
        return lease_key(self._prefix, name)


@dataclass(frozen=True, slots=True)
class Tenure:
    """Facts about a live lease.

    Attributes:
        holder: who holds it.
        renewed_at: when it was written last, by the store's clock.
        ttl_s: how long it lives from then on.
    """

    holder: str
    renewed_at: datetime
    ttl_s: float

    @property
    def ends_at(self) -> datetime:
        """Time at which it becomes free unless it is renewed, by the store's clock."""
        return self.renewed_at + timedelta(seconds=self.ttl_s)


@dataclass(frozen=True, slots=True)
class Held:
    """Knowledge of a holder about its lease.

    Attributes:
        etag: of the last write that is known to be done.
        since_s: when that write was asked for, by this process's monotonic clock.
        ttl_s: how long the lease lives without being renewed.
    """

    etag: str
    since_s: float
    ttl_s: float


class Lease:
    """A lease that this process holds.

    Attributes:
        lost: set when somebody took the lease over, or when `keep_alive` could not renew it for
            half its time to live; whoever works under the lease must stop then.
    """

    def __init__(
        self, store: Records, key: str, record: _Record, held: Held, clock: Callable[[], float]
    ) -> None:
        self._store, self._key, self._record = store, key, record
        self._held, self._clock = held, clock
        self._nonces = {record.nonce}  # of all writes that may have reached the store
        self._lock = threading.Lock()
        self.lost = threading.Event()

    @property
    def ttl_s(self) -> float:
        """Seconds for which the lease lives without being renewed."""
        return self._held.ttl_s

    @property
    def unrenewed_s(self) -> float:
        """Seconds since the last renewal that succeeded was asked for."""
        return self._clock() - self._held.since_s

    def renew(self) -> None:
        """Let the lease live for its whole time again.

        Raises:
            LeaseLostError: somebody else has it, or it counts as lost already.
            StorageError: the store is in trouble; the lease may still be held.
        """
        if not self.lost.is_set() and not self._write(released=False):
            self.lost.set()
        self.check()

    def check(self) -> None:
        """Return if the lease does not count as lost; the store is not asked.

        Raises:
            LeaseLostError: it does.
        """
        if self.lost.is_set():
            raise LeaseLostError(
                f"The lease {self._key} in {self._store.uri} is lost.",
                "somebody else has taken over, or the store could not be reached in time",
            )

    def release(self) -> None:
        """Give the lease back; one that somebody else has taken over stays as it is."""
        if not self._write(released=True):
            log.info("lease %s was taken over before it was released", self._key)

    def keep_alive(self) -> KeepAlive:
        """Return a context manager that renews the lease while its block runs."""
        return KeepAlive(self)

    def _write(self, *, released: bool) -> bool:
        """Write the record once more; return False if it is somebody else's."""
        with self._lock:
            for _ in range(_TRIES):
                asked_s = self._clock()
                record = replace(self._record, nonce=uuid.uuid4().hex, released=released)
                self._nonces.add(record.nonce)
                try:
                    etag = self._store.put_if_match(self._key, record.to_bytes(), self._held.etag)
                except PreconditionFailedError:
                    found = self._etag_if_ours(record.nonce)
                    if found is None:
                        return False
                    if not found:
                        continue
                    etag = found
                self._nonces = {record.nonce}
                self._held = Held(etag, asked_s, self._held.ttl_s)
                return True
        raise StorageError(f"The lease {self._key} cannot be written.", "try again")

    def _etag_if_ours(self, nonce: str) -> str | None:
        """Look what is stored after a refused write.

        Returns:
            The etag if the write with `nonce` is stored after all, "" if an earlier one of ours is
            and the write should be repeated, None if the lease is somebody else's.
        """
        try:
            stored = self._store.get(self._key)
        except NotFoundError:
            return None
        current = _Record.from_bytes(stored.data, self._key)
        if current.nonce == nonce:
            return stored.etag
        if current.nonce not in self._nonces or current.released:
            return None
        self._held = Held(stored.etag, self._held.since_s, self._held.ttl_s)
        return ""


class KeepAlive:
    """Renews a lease in the background, every quarter of its time to live.

    A second thread watches the time, because a renewal may hang in the network.

    Args:
        lease: the lease; it is not released at the end.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=target, daemon=True, name=f"lease-{target.__name__}")
            for target in (self._renew, self._watch)
        ]

    @property
    def lost(self) -> threading.Event:
        """Set when the lease is lost; see `Lease.lost`."""
        return self._lease.lost

    def check(self) -> None:
        """Return if nobody else can have the lease yet.

        It asks the clock itself: a process that was frozen may go on before its threads do.

        Raises:
            LeaseLostError: the lease is lost, or has not been renewed for half its time to live.
        """
        if self._lease.unrenewed_s >= self._lease.ttl_s / 2:
            self._lease.lost.set()
        self._lease.check()

    def __enter__(self) -> KeepAlive:
        if self._lease.unrenewed_s >= self._lease.ttl_s / 4:  # the work began late
            self._lease.renew()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(self._lease.ttl_s / 4)  # a renewal that hangs must not hold up the work

    def _renew(self) -> None:
        wait_s = self._lease.ttl_s / 4
        while not self._over.wait(wait_s):
            try:
                self._lease.renew()
            except LeaseLostError as error:
                log.warning("%s", error)
                return
            except StorageError as error:
                log.warning("a lease could not be renewed, trying again: %s", error)
                wait_s = self._lease.ttl_s / 16
            else:
                wait_s = self._lease.ttl_s / 4

    def _watch(self) -> None:
        limit_s = self._lease.ttl_s / 2
        while not self._over.wait(max(0.0, limit_s - self._lease.unrenewed_s)):
            if self._lease.unrenewed_s >= limit_s:
                self._lease.lost.set()
                return
