"""Checksums, abandoned uploads and odd names on a real S3 server."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from automl.errors import DamagedDataError, NotFoundError, PreconditionFailedError
from automl.storage.open import open_store
from automl.storage.probe import probe_conditional_writes
from automl.storage.s3.objects import S3ObjectStore
from automl.storage.s3.transfer import PART_BYTES
from benchmarks.servers import SeaweedServer
from tests.faulty_proxy import Fault, FaultyProxy, Request

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PATIENCE_S = 30.0


@pytest.fixture
def client(s3_server: SeaweedServer, s3_store_uri: str) -> Iterator[S3Client]:
    """A client of its own, which knows nothing of the store."""
    assert s3_store_uri
    client = boto3.client("s3", endpoint_url=s3_server.endpoint)
    yield client
    client.close()


def opened(uri: str) -> S3ObjectStore:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return S3ObjectStore(bucket, prefix)


class TestChecksums:
    @pytest.fixture
    def store(self, s3_store_uri: str) -> S3ObjectStore:
        return opened(s3_store_uri)

    def damage(self, client: S3Client, store: S3ObjectStore, key: str) -> None:
        """Change one byte of an object and nothing else that the store looks at."""
        bucket, _, prefix = store.uri.removeprefix("s3://").partition("/")
        target: Any = {"Bucket": bucket, "Key": f"{prefix}/{key}"}
        stored = client.get_object(**target)
        data = bytearray(stored["Body"].read())
        data[len(data) // 2] ^= 1
        client.put_object(**target, Body=bytes(data), Metadata=stored["Metadata"])

    @pytest.mark.parametrize("write", ["put", "put_if_absent", "put_if_match", "upload", "parts"])
    def test_damage_is_noticed_whatever_wrote_the_object(
        self, client: S3Client, store: S3ObjectStore, tmp_path: Path, write: str
    ) -> None:
        data = b"content" * (3_000_000 if write == "parts" else 1)
        (tmp_path / "source").write_bytes(data)
        if write == "put":
            store.put("some/key", data)
        elif write == "put_if_absent":
            store.put_if_absent("some/key", data)
        elif write == "put_if_match":
            store.put_if_match("some/key", data, store.put_if_absent("some/key", b"before"))
        else:
            store.upload(tmp_path / "source", "some/key")
        assert store.get("some/key").data == data
        store.download("some/key", tmp_path / "target")

        self.damage(client, store, "some/key")

        with pytest.raises(DamagedDataError, match=r"some/key .* SHA-256"):
            store.get("some/key")
        with pytest.raises(DamagedDataError, match=r"some/key .* SHA-256"):
            store.download("some/key", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == data
        assert {path.name for path in tmp_path.iterdir()} == {"source", "target"}

    def test_damage_on_the_way_is_noticed_by_the_servers_checksum(
        self, store: S3ObjectStore, faulty_s3: FaultyProxy, tmp_path: Path
    ) -> None:
        store.put("key", b"content")
        faulty_s3.plan(Fault(flips_a_bit=True), times=2)

        with pytest.raises(DamagedDataError, match="key"):
            store.get("key")
        with pytest.raises(DamagedDataError, match="key"):
            store.download("key", tmp_path / "target")

    def test_objects_of_other_programs_have_no_digest_and_are_read(
        self, client: S3Client, store: S3ObjectStore, tmp_path: Path
    ) -> None:
        bucket, _, prefix = store.uri.removeprefix("s3://").partition("/")
        client.put_object(Bucket=bucket, Key=f"{prefix}/key", Body=b"data")

        store.download("key", tmp_path / "target")

        assert store.get("key").data == (tmp_path / "target").read_bytes() == b"data"


def upload_slowly(uri: str, path: Path) -> None:
    """Upload a file in parts; the test kills this process meanwhile."""
    opened(uri).upload(path, "großes file")


def is_later_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber=" in request.path and not _is_first(request)


def _is_first(request: Request) -> bool:
    return "partNumber=1&" in request.path or request.path.endswith("partNumber=1")


class TestAbandonedUploads:
    @pytest.fixture
    def abandoned(self, s3_store_uri: str, faulty_s3: FaultyProxy, tmp_path: Path) -> S3ObjectStore:
        """A store below which a process died in the middle of an upload."""
        (tmp_path / "source").write_bytes(bytes(3 * PART_BYTES))
        faulty_s3.plan(Fault(delay_s=_PATIENCE_S), times=9, matches=is_later_part)
        process = multiprocessing.get_context("spawn").Process(
            target=upload_slowly, args=(s3_store_uri, tmp_path / "source")
        )
        process.start()
        limit_s = time.monotonic() + _PATIENCE_S
        while not any(is_later_part(seen) for seen in faulty_s3.requests):
            assert time.monotonic() < limit_s
            time.sleep(0.05)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        return opened(s3_store_uri)

    def listed(self, client: S3Client, store: S3ObjectStore) -> list[str]:
        bucket, _, prefix = store.uri.removeprefix("s3://").partition("/")
        reply = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix)
        return [found["Key"].removeprefix(f"{prefix}/") for found in reply.get("Uploads", ())]

    def test_the_upload_of_a_killed_process_is_aborted_once_it_is_old(
        self, client: S3Client, abandoned: S3ObjectStore
    ) -> None:
        assert self.listed(client, abandoned) == ["großes file"]

        assert abandoned.abort_abandoned_uploads(older_than=timedelta(hours=1)) == []
        assert self.listed(client, abandoned) == ["großes file"]
        assert abandoned.abort_abandoned_uploads(older_than=-timedelta(seconds=5)) == [
            "großes file"
        ]
        assert self.listed(client, abandoned) == []
        assert list(abandoned.list("")) == []

    def test_uploads_below_other_prefixes_are_not_touched(
        self, client: S3Client, abandoned: S3ObjectStore
    ) -> None:
        for other in (opened(abandoned.uri + "/below"), opened(abandoned.uri[:-1])):
            assert other.abort_abandoned_uploads(older_than=-timedelta(hours=1)) == []

        assert self.listed(client, abandoned) == ["großes file"]


ODD_NAMES = [
    "plain",
    "with space/a b",
    "ünïcödé/日本",
    "100%/%20/%2F",
    "a+b/c&d=e;f",
    "q?#[x]/'!*()",
]


class TestNames:
    @pytest.fixture(params=["", "deep/er/and/deeper", *ODD_NAMES], ids=lambda name: name or "empty")
    def prefixed(self, request: pytest.FixtureRequest, client: S3Client) -> S3ObjectStore:
        """A store of a fresh bucket, below an odd prefix."""
        bucket = f"names-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=bucket)
        return S3ObjectStore(bucket, request.param)

    def test_every_operation_knows_every_name(
        self, prefixed: S3ObjectStore, tmp_path: Path
    ) -> None:
        probe_conditional_writes(prefixed)
        (tmp_path / "source").write_bytes(b"three")
        for key in ODD_NAMES:
            etag = prefixed.put_if_absent(key, b"one")
            with pytest.raises(PreconditionFailedError):
                prefixed.put_if_absent(key, b"lost")
            etag = prefixed.put_if_match(key, b"two", etag)
            assert prefixed.get(key).data == b"two"
            assert prefixed.get(key).etag == etag
            prefixed.upload(tmp_path / "source", key)
            prefixed.download(key, tmp_path / "target")
            assert (tmp_path / "target").read_bytes() == b"three"
            assert [entry.key for entry in prefixed.list(key)] == [key]

        assert [entry.key for entry in prefixed.list("")] == sorted(ODD_NAMES)
        assert [entry.key for entry in prefixed.list("", "b")] == [
            name for name in sorted(ODD_NAMES) if name > "b"
        ]
        for key in ODD_NAMES:
            prefixed.delete(key)
            with pytest.raises(NotFoundError):
                prefixed.get(key)
        assert list(prefixed.list("")) == []

    @pytest.mark.parametrize("prefixed", ["", "größe/a b+c%20"], indirect=True)
    def test_large_files_know_every_name(self, prefixed: S3ObjectStore, tmp_path: Path) -> None:
        content = hashlib.sha256(b"x").digest() * (PART_BYTES // 32 + 1)
        (tmp_path / "source").write_bytes(content)

        prefixed.upload(tmp_path / "source", "größe/a b+c%20")

        assert prefixed.get("größe/a b+c%20").data == content
        assert prefixed.abort_abandoned_uploads(older_than=-timedelta(hours=1)) == []

    def test_an_address_is_taken_literally(self, s3_server: SeaweedServer) -> None:
        for name in ODD_NAMES[:5]:
            assert open_store(f"s3://{s3_server.bucket}/{name}").uri.endswith(f"/{name}")
