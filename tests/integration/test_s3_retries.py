"""What a store on S3 does when its server fails for a while: a real server behind a real proxy."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from automl.errors import (
    NotFoundError,
    PreconditionFailedError,
    StorageAccessError,
    StorageError,
)
from automl.storage.probe import probe_conditional_writes
from automl.storage.s3.objects import S3ObjectStore
from automl.storage.s3.retries import S3Limits
from benchmarks.servers import SeaweedServer
from tests.faulty_proxy import (
    LOST_REPLY,
    LOST_REQUEST,
    Fault,
    FaultyProxy,
    Request,
    cut_body,
    refusal,
)

HOUR = timedelta(hours=1)
PATIENT = S3Limits(total_s=20.0, read_s=5.0, longest_pause_s=0.5)
HASTY = S3Limits(total_s=1.0, connect_s=0.5, read_s=0.5, cleanup_s=0.3, longest_pause_s=0.2)


def opened(uri: str, limits: S3Limits = PATIENT) -> S3ObjectStore:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return S3ObjectStore(bucket, prefix, limits)


@pytest.fixture
def store(s3_store_uri: str, faulty_s3: FaultyProxy) -> S3ObjectStore:
    """A patient store behind the proxy."""
    assert faulty_s3
    return opened(s3_store_uri)


def is_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber" in request.path


def is_completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.path


PASSING_FAULTS = {
    "a lost request": LOST_REQUEST,
    "a lost reply": LOST_REPLY,
    "500": refusal(500, "InternalError"),
    "502": refusal(502, "BadGateway"),
    "503": refusal(503, "ServiceUnavailable"),
    "slow down": refusal(503, "SlowDown"),
    "429": refusal(429, "TooManyRequests"),
    "a request that came too slowly": refusal(400, "RequestTimeout"),
    "a request that was damaged on its way": refusal(400, "BadDigest"),
}
OPERATIONS: dict[str, Callable[[S3ObjectStore, Path], object]] = {
    "get": lambda store, _: store.get("known").data,
    "put": lambda store, _: store.put("new", b"data"),
    "list": lambda store, _: [entry.key for entry in store.list("kn")],
    "delete": lambda store, _: store.delete("known"),
    "upload": lambda store, folder: store.upload(folder / "source", "file"),
    "download": lambda store, folder: store.download("known", folder / "target"),
    "now": lambda store, _: store.now(),
}


class TestPassingTrouble:
    @pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
    def test_every_operation_is_repeated_until_it_succeeds(
        self,
        store: S3ObjectStore,
        faulty_s3: FaultyProxy,
        operation: Callable[[S3ObjectStore, Path], object],
        tmp_path: Path,
    ) -> None:
        store.put("known", b"content")
        (tmp_path / "source").write_bytes(b"file")
        before = len(faulty_s3.requests)
        for fault in PASSING_FAULTS.values():
            faulty_s3.plan(fault)

        operation(store, tmp_path)

        assert len(faulty_s3.requests) - before == len(PASSING_FAULTS) + 1

    @pytest.mark.parametrize("fault", PASSING_FAULTS.values(), ids=PASSING_FAULTS)
    def test_a_passing_fault_does_not_show(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy, fault: Fault
    ) -> None:
        faulty_s3.plan(fault, times=2)

        store.put("key", b"data")

        assert store.get("key").data == b"data"
        assert faulty_s3.count("PUT") == 3

    def test_a_part_that_breaks_off_is_read_again(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy
    ) -> None:
        store.put("key", b"0123456789" * 1000)
        faulty_s3.plan(cut_body(100), times=2, matches=lambda request: request.method == "GET")

        assert store.get_range("key", 10, 4000) == b"0123456789" * 400
        assert faulty_s3.count("GET") == 3

    def test_a_server_that_sends_no_parts_is_named(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy
    ) -> None:
        store.put("key", b"0123456789")
        faulty_s3.plan(refusal(200, ""), matches=lambda request: request.method == "GET")

        with pytest.raises(StorageAccessError, match=r"all of key instead of a part\..* Range"):
            store.get_range("key", 1, 3)

    def test_a_silent_server_is_left_after_the_read_limit(
        self, s3_store_uri: str, faulty_s3: FaultyProxy
    ) -> None:
        store = opened(s3_store_uri, S3Limits(total_s=20.0, read_s=0.5))
        store.put("key", b"data")
        faulty_s3.plan(Fault(delay_s=3.0))
        started_s = time.monotonic()

        assert store.get("key").data == b"data"
        assert time.monotonic() - started_s < 3.0

    def test_an_outage_is_ridden_out_by_many_threads(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy
    ) -> None:
        store.put("key", b"data")
        results: list[bytes] = []
        with faulty_s3.outage(3.0):
            threads = [
                threading.Thread(target=lambda: results.append(store.get("key").data))
                for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        assert results == [b"data"] * 8

    def test_a_body_that_breaks_off_is_read_again(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy
    ) -> None:
        content = b"0123456789" * 10_000
        store.put("key", content)
        for after_bytes in (0, 1, 50_000, 99_999):
            faulty_s3.plan(cut_body(after_bytes))

        assert store.get("key").data == content
        assert faulty_s3.count("GET") == 5

    def test_a_listing_that_breaks_off_is_asked_for_again(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy
    ) -> None:
        store.put("key", b"data")
        faulty_s3.plan(cut_body(100), times=2)

        assert [entry.key for entry in store.list("")] == ["key"]


class TestLostRaces:
    @pytest.mark.parametrize(
        ("status", "code"),
        [(409, "ConditionalRequestConflict"), (409, "OperationAborted"), (404, "NoSuchKey")],
    )
    def test_a_conflict_is_a_lost_race_and_not_repeated(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy, status: int, code: str
    ) -> None:
        faulty_s3.plan(refusal(status, code), times=2)

        with pytest.raises(PreconditionFailedError):
            store.put_if_match("key", b"data", '"etag"')
        with pytest.raises(PreconditionFailedError):
            store.put_if_absent("key", b"data")
        assert faulty_s3.count("PUT") == 2

    def test_a_conflict_of_an_unconditional_write_is_repeated(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy
    ) -> None:
        faulty_s3.plan(refusal(409, "OperationAborted"))

        store.put("key", b"data")

        assert store.get("key").data == b"data"

    def test_a_creation_whose_reply_is_lost_took_effect_and_looks_like_a_lost_race(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy
    ) -> None:
        faulty_s3.plan(LOST_REPLY)

        with pytest.raises(PreconditionFailedError):
            store.put_if_absent("key", b"with a nonce")
        assert store.get("key").data == b"with a nonce"

    def test_a_creation_that_never_arrived_is_made(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy
    ) -> None:
        faulty_s3.plan(LOST_REQUEST)
        etag = store.put_if_absent("key", b"one")
        faulty_s3.plan(LOST_REQUEST)
        store.put_if_match("key", b"two", etag)

        assert store.get("key").data == b"two"

    @pytest.mark.parametrize("lost", range(5))
    def test_the_probe_passes_whichever_reply_is_lost(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy, lost: int
    ) -> None:
        writes = itertools.count()
        faulty_s3.plan(
            LOST_REPLY, matches=lambda seen: seen.method == "PUT" and next(writes) == lost
        )

        probe_conditional_writes(store)

        assert next(writes) > lost
        assert list(store.list("")) == []


class TestTheLimit:
    def test_a_long_outage_ends_as_a_retryable_error_that_tells_what_was_tried(
        self, s3_store_uri: str, faulty_s3: FaultyProxy
    ) -> None:
        store = opened(s3_store_uri, HASTY)
        store.put("key", b"data")
        faulty_s3.switch_off()
        started_s = time.monotonic()

        with pytest.raises(StorageError) as caught:
            store.get("some/key")

        assert 1.0 <= time.monotonic() - started_s < 5.0
        assert caught.value.retryable
        assert type(caught.value) is StorageError
        text = str(caught.value)
        assert faulty_s3.endpoint in text
        assert "automl-test" in text
        assert "cannot be reached: GetObject of some/key failed" in text
        assert "times in 1 s" in text
        assert "nothing stored is lost" in text
        faulty_s3.switch_on()
        assert store.get("key").data == b"data"

    def test_a_server_that_throttles_for_ever_is_named(
        self, s3_store_uri: str, faulty_s3: FaultyProxy
    ) -> None:
        faulty_s3.plan(refusal(503, "SlowDown"), times=10_000)

        with pytest.raises(StorageError, match=r"in trouble: PutObject of key .* 503 SlowDown"):
            opened(s3_store_uri, HASTY).put("key", b"data")

    def test_bodies_that_always_break_off_end_within_the_limit(
        self, s3_store_uri: str, faulty_s3: FaultyProxy, tmp_path: Path
    ) -> None:
        store = opened(s3_store_uri, HASTY)
        store.put("key", b"data")
        faulty_s3.plan(cut_body(0), times=10_000)
        started_s = time.monotonic()

        with pytest.raises(StorageError, match="GetObject of key failed"):
            store.get("key")
        with pytest.raises(StorageError, match="GetObject of key failed"):
            store.download("key", tmp_path / "target")
        assert time.monotonic() - started_s < 10.0
        assert list(tmp_path.iterdir()) == []

    def test_access_errors_fail_at_once(self, store: S3ObjectStore, faulty_s3: FaultyProxy) -> None:
        faulty_s3.plan(refusal(403, "AccessDenied"))

        with pytest.raises(StorageAccessError):
            store.put("key", b"data")
        assert len(faulty_s3.requests) == 1

    def test_a_missing_key_is_no_trouble(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy
    ) -> None:
        with pytest.raises(NotFoundError):
            store.get("missing")
        assert len(faulty_s3.requests) == 1


class TestFilesInParts:
    CONTENT = hashlib.sha256(b"part").digest() * (40 * 2**20 // 32)

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        path = tmp_path / "source"
        path.write_bytes(self.CONTENT)
        return path

    def test_a_part_that_fails_is_sent_again_alone(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy, source: Path
    ) -> None:
        faulty_s3.plan(LOST_REPLY, matches=is_part)
        faulty_s3.plan(LOST_REQUEST, matches=is_part)
        faulty_s3.plan(refusal(503, "SlowDown"), matches=is_part)

        store.upload(source, "file")

        assert store.get("file").data == self.CONTENT
        assert faulty_s3.count("PUT", "partNumber") == 3 + 3
        assert faulty_s3.count("POST", "uploads") == 1

    def test_a_completion_whose_reply_is_lost_counts(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy, source: Path
    ) -> None:
        faulty_s3.plan(LOST_REPLY, matches=is_completion)

        store.upload(source, "file")

        assert store.get("file").data == self.CONTENT

    def test_a_completion_that_the_server_has_forgotten_counts_if_the_file_is_there(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy, source: Path
    ) -> None:
        faulty_s3.plan(LOST_REPLY, matches=is_completion)
        faulty_s3.plan(refusal(404, "NoSuchUpload"), matches=is_completion)

        store.upload(source, "file")

        assert store.get("file").data == self.CONTENT

    def test_an_upload_that_somebody_aborted_is_no_success(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy, source: Path
    ) -> None:
        store.put("file", b"before")
        faulty_s3.plan(refusal(404, "NoSuchUpload"), matches=is_completion)

        with pytest.raises(StorageError, match=r"CompleteMultipartUpload \(NoSuchUpload\)"):
            store.upload(source, "file")
        assert store.get("file").data == b"before"

    def test_an_upload_that_is_given_up_leaves_no_parts(
        self, s3_store_uri: str, faulty_s3: FaultyProxy, source: Path
    ) -> None:
        store = opened(s3_store_uri, HASTY)
        faulty_s3.plan(refusal(500, "InternalError"), times=10_000, matches=is_part)

        with pytest.raises(StorageError, match=r"UploadPart of file failed .* 500 InternalError"):
            store.upload(source, "file")

        assert faulty_s3.count("DELETE", "uploadId") == 1
        assert store.abort_abandoned_uploads(older_than=-HOUR) == []
        assert list(store.list("")) == []

    def test_a_download_continues_where_it_broke_off(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy, source: Path, tmp_path: Path
    ) -> None:
        store.upload(source, "file")
        before = len(faulty_s3.requests)
        faulty_s3.plan(cut_body(30 * 2**20))
        faulty_s3.plan(cut_body(2**20 + 1))

        store.download("file", tmp_path / "target")

        assert (tmp_path / "target").read_bytes() == self.CONTENT
        starts = [seen.headers.get("range", "") for seen in faulty_s3.requests[before:]]
        assert starts[0] == ""
        assert starts[1] == f"bytes={30 * 2**20}-"
        assert starts[2] == f"bytes={31 * 2**20 + 1}-"

    def test_a_file_that_is_replaced_during_its_download_comes_whole(
        self,
        store: S3ObjectStore,
        s3_server: SeaweedServer,
        faulty_s3: FaultyProxy,
        source: Path,
        tmp_path: Path,
    ) -> None:
        store.upload(source, "file")
        client = boto3.client("s3", endpoint_url=s3_server.endpoint)
        prefix = store.uri.removeprefix(f"s3://{s3_server.bucket}/")

        def replace(seen: Request) -> bool:
            if "range" in seen.headers:
                client.put_object(Bucket=s3_server.bucket, Key=f"{prefix}/file", Body=b"new")
            return False

        faulty_s3.plan(cut_body(2**20))
        faulty_s3.plan(LOST_REQUEST, matches=replace)

        store.download("file", tmp_path / "target")

        assert (tmp_path / "target").read_bytes() == b"new"
        client.close()
