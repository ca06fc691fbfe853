"""Checks of the store: rights, conditional writes, clock, latency, space."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from automl.doctor.findings import STORAGE, USAGE, Finding, failure, fine, trouble
from automl.domain.layout import PROBES, probe_key
from automl.errors import AutoMLError, DamagedDataError
from automl.storage.file import FileObjectStore
from automl.storage.objects import ObjectStore
from automl.storage.open import open_store
from automl.storage.probe import probe_conditional_writes

_SKEW = timedelta(seconds=60)
_ABANDONED = timedelta(days=1)  # no upload takes so long
_SLOW_S = 1.0
_ROUNDS = 5
_PROBE_BYTES = 1024
_FREE_BYTES, _FREE_FILES = 2 * 2**30, 10_000


def examine_store(store: ObjectStore, patience_s: float) -> list[Finding]:
    """Return what is found of the store, up to the first thing that keeps it from being used.

    Args:
        store: the store.
        patience_s: how long trouble may last.
    """
    findings = []
    for finding in _examine(store, patience_s):
        findings.append(finding)
        if not finding.ok and finding.check in {"listing", "writing", "reading", "deleting"}:
            break
    return findings


def _examine(store: ObjectStore, patience_s: float) -> Iterator[Finding]:
    key, data = probe_key(), os.urandom(_PROBE_BYTES)
    yield _tried("listing", "the home can be listed", lambda: next(store.list(PROBES), None))
    yield _leftovers(store.uri, patience_s)  # before the first write, which removes old files
    if not store.uri.startswith("s3://"):
        yield _space(Path(store.uri))
    yield from _rights(store, key, data)
    yield _tried("conditional writes", "obeyed", lambda: probe_conditional_writes(store))
    yield clock("clock", "the store's", store.now)


def _rights(store: ObjectStore, key: str, data: bytes) -> Iterator[Finding]:
    writes_s: list[float] = []
    reads_s: list[float] = []
    try:
        yield _tried("writing", "objects can be written", lambda: store.put(key, data))
        yield _tried("reading", "objects can be read", lambda: _check(store, key, data))
        for _ in range(_ROUNDS):
            writes_s.append(_seconds(lambda: store.put(key, data)))
            reads_s.append(_seconds(lambda: store.get(key)))
        yield _latency(writes_s, reads_s)
    except AutoMLError as error:
        yield failure("latency", error)
    finally:
        with suppress(AutoMLError):  # the next line says so, unless it was not written at all
            store.delete(key)
    yield _tried("deleting", "objects can be deleted", lambda: store.delete(key))


def _check(store: ObjectStore, key: str, data: bytes) -> None:
    if store.get(key).data != data:
        raise DamagedDataError(
            f"{store.uri} does not give back what was written.", "use another store"
        )


def _tried(check: str, found: str, attempt: Callable[[], object]) -> Finding:
    try:
        attempt()
    except AutoMLError as error:
        return failure(check, error)
    return fine(check, found)


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.monotonic()
    work()
    return time.monotonic() - started_s


def _latency(writes_s: list[float], reads_s: list[float]) -> Finding:
    write_s, read_s = statistics.median(writes_s), statistics.median(reads_s)
    found = (
        f"half of {_ROUNDS} writes of 1 KiB took up to {write_s * 1000:.1f} ms, "
        f"half of the reads {read_s * 1000:.1f} ms"
    )
    if max(write_s, read_s) < _SLOW_S:
        return fine("latency", found)
    return trouble("latency", found, "keep the home nearer to the workers", STORAGE)


def clock(check: str, whose: str, now: Callable[[], datetime]) -> Finding:
    """Return how far this machine's clock is from another one, and in which direction.

    Args:
        check: name of the check.
        whose: the other clock.
        now: asks for the time of the other clock.
    """
    before = datetime.now(UTC)
    try:
        theirs = now()
    except AutoMLError as error:
        return failure(check, error)
    ours = before + (datetime.now(UTC) - before) / 2
    off = ours - theirs
    direction = "ahead of" if off > timedelta(0) else "behind"
    found = f"this machine's clock is {abs(off).total_seconds():.1f} s {direction} {whose}"
    if abs(off) < _SKEW:
        return fine(check, found)
    return trouble(check, found, "synchronise the clocks, such as with NTP", USAGE)


def _space(folder: Path) -> Finding:
    while not folder.exists():
        folder = folder.parent
    status = os.statvfs(folder)
    free_bytes = status.f_bavail * status.f_frsize
    files = f" and {status.f_favail} more files" if status.f_files else ""  # some count none
    found = f"room for {free_bytes / 2**30:.1f} GiB{files}"
    has_files = status.f_files == 0 or status.f_favail >= _FREE_FILES
    if free_bytes >= _FREE_BYTES and has_files:
        return fine("space", found)
    return trouble("space", found, "free some space there or move AUTOML_HOME", STORAGE)


def examine_log(study_log: str, home: str, patience_s: float) -> list[Finding]:
    """Return what is found of the database that keeps study logs and leases.

    Args:
        study_log: its address.
        home: URI of the home.
        patience_s: how long trouble may last.
    """
    from automl.storage.sql.database import Database
    from automl.storage.sql.records import SqlRecords

    records = SqlRecords(Database(study_log, patience_s), home)
    return [clock("study log", f"that of {records.uri}", records.now)]


def _leftovers(uri: str, patience_s: float) -> Finding:
    """Return what processes that died while they wrote have left in the store."""
    check = "unfinished writes"
    try:
        if uri.startswith("s3://"):
            return _unfinished_uploads(check, uri, patience_s)
        files = FileObjectStore(Path(uri)).abandoned_files()
    except AutoMLError as error:
        return failure(check, error)
    if not files:
        return fine(check, "none")
    return fine(check, f"{len(files)} temporary files, which the next write removes")


def _unfinished_uploads(check: str, uri: str, patience_s: float) -> Finding:
    from automl.storage.s3.objects import S3ObjectStore  # boto3 is slow to import

    store = open_store(uri, patience_s)
    assert isinstance(store, S3ObjectStore)
    keys = store.abandoned_uploads(_ABANDONED)
    if not keys:
        return fine(check, "none")
    return trouble(
        check,
        f"{len(keys)} uploads were begun more than a day ago and take room, such as of {keys[0]}",
        "abort them, or let the bucket do so with the rule AbortIncompleteMultipartUpload",
        STORAGE,
    )
