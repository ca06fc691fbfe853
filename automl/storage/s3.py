"""An object store in a bucket of S3 or of a server that speaks S3 with conditional writes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from automl.errors import DamagedDataError, NotFoundError, PreconditionFailedError, StorageError
from automl.storage.durable import make_folder, replace_file, sync_file, temporary_name
from automl.storage.objects import ObjectEntry, StoredObject, check_key, check_prefix
from automl.storage.s3_errors import is_conflict, is_missing, place, translate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BROKEN_BODY = (
    ConnectionClosedError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
_BODY_TRIES = 3  # boto3 retries requests, but not bodies that break off
_READ_TIMEOUT_S = 60  # a contended conditional write may take seconds
_DIGEST = "sha256"  # name of the metadata entry


class S3ObjectStore:
    """Objects below a prefix of a bucket.

    Credentials, endpoint and region come from boto3's own chain (environment, profile, role).
    An instance can be pickled and used by many threads; every process connects for itself.

    Args:
        bucket: name of an existing bucket.
        prefix: beginning of all keys, without slashes at its ends; "" for the whole bucket.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self._bucket, self._prefix = bucket, prefix.strip("/")
        self._lock = threading.Lock()
        self._connection: tuple[int, S3Client] | None = None

    def __getstate__(self) -> tuple[str, str]:
        return self._bucket, self._prefix

    def __setstate__(self, state: tuple[str, str]) -> None:
        self._bucket, self._prefix = state
        self._lock, self._connection = threading.Lock(), None

    @property
    def uri(self) -> str:
        """The bucket and the prefix."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, key: str) -> StoredObject:
        """Return the content of a key; raise NotFoundError if there is none."""
        with self._translated(key):
            for _ in range(_BODY_TRIES - 1):
                try:
                    return self._get(key)
                except _BROKEN_BODY:
                    continue
            return self._get(key)

    def put(self, key: str, data: bytes) -> str:
        """Write a key, whatever it held, and return its etag."""
        with self._translated(key):
            return self._client.put_object(Bucket=self._bucket, Key=self._full(key), Body=data)[
                "ETag"
            ]

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a key that does not exist yet, or raise PreconditionFailedError.

        boto3 repeats a request whose reply was lost; see the protocol for what that means.
        """
        with self._translated(key):
            try:
                return self._client.put_object(
                    Bucket=self._bucket, Key=self._full(key), Body=data, IfNoneMatch="*"
                )["ETag"]
            except ClientError as error:
                if is_conflict(error):
                    raise PreconditionFailedError(
                        f"{key} exists in {self.uri} already, or is being created."
                    ) from error
                raise

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Write a key that still has `etag`, or raise PreconditionFailedError."""
        with self._translated(key):
            try:
                return self._client.put_object(
                    Bucket=self._bucket, Key=self._full(key), Body=data, IfMatch=etag
                )["ETag"]
            except ClientError as error:
                if is_conflict(error) or is_missing(error):  # AWS answers 404 for a missing key
                    raise PreconditionFailedError(
                        f"{key} in {self.uri} has changed or is gone."
                    ) from error
                raise

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key.

        All pages are read first: some servers sort folder by folder, and understand `StartAfter`
        in that order, so that the order and the start are made here.
        """
        check_prefix(prefix)
        found = [entry for entry in self._pages(prefix) if entry.key > start_after]
        yield from sorted(found, key=lambda entry: entry.key)

    def delete(self, key: str) -> None:
        """Remove a key; one that does not exist is fine."""
        with self._translated(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._full(key))

    def upload(self, path: Path, key: str) -> None:
        """Write the content of a local file to a key, in parts if it is large."""
        with self._translated(key):
            self._client.upload_file(
                Filename=str(path),
                Bucket=self._bucket,
                Key=self._full(key),
                ExtraArgs={"Metadata": {_DIGEST: _digest(path)}},
            )

    def download(self, key: str, path: Path) -> None:
        """Write the content of a key to a local file; raise NotFoundError if there is none.

        Raises:
            DamagedDataError: the content is not what `upload` sent.
        """
        temporary = temporary_name(path.parent)
        with self._translated(key):
            make_folder(path.parent)
            try:
                self._fetch(key, temporary)
                sync_file(temporary)
                replace_file(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def now(self) -> datetime:
        """Return the present time by the server's clock, to the second."""
        with self._translated("the clock"):
            reply = self._client.head_bucket(Bucket=self._bucket)
        text = reply["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(text).astimezone(UTC)
        except ValueError as error:
            raise StorageError(
                f"{place(self._endpoint, self._bucket)} sent no valid date: {text!r}.",
                "a proxy may have removed the Date header",
            ) from error

    @property
    def _client(self) -> S3Client:
        """The connection of this process; one made before a fork must not be shared."""
        with self._lock:
            if self._connection is None or self._connection[0] != os.getpid():
                self._connection = os.getpid(), _connect(self._bucket)
            return self._connection[1]

    @property
    def _endpoint(self) -> str:
        return self._connection[1].meta.endpoint_url if self._connection else ""

    def _full(self, key: str) -> str:
        check_key(key)
        return f"{self._prefix}/{key}" if self._prefix else key

    def _get(self, key: str) -> StoredObject:
        reply = self._client.get_object(Bucket=self._bucket, Key=self._full(key))
        data = reply["Body"].read()
        return StoredObject(data, reply["ETag"], reply["LastModified"].astimezone(UTC))

    def _pages(self, prefix: str) -> Iterator[ObjectEntry]:
        base = f"{self._prefix}/" if self._prefix else ""
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=base + prefix):
                for entry in page.get("Contents", ()):
                    key = entry["Key"].removeprefix(base)
                    if key and not key.endswith("/"):  # consoles create such keys as folders
                        modified = entry["LastModified"].astimezone(UTC)
                        yield ObjectEntry(key, entry["Size"], modified, entry["ETag"])

    def _fetch(self, key: str, path: Path) -> None:
        """Download to `path` and compare with the digest that `upload` stored, if it did.

        The object may be replaced between the two requests; then both are made again.
        """
        expected, etag = self._head(key)
        while True:
            self._client.download_file(Bucket=self._bucket, Key=self._full(key), Filename=str(path))
            if expected is None or _digest(path) == expected:
                return
            before, (expected, etag) = etag, self._head(key)
            if before == etag:
                raise DamagedDataError(
                    f"{key} in {self.uri} does not have the SHA-256 it was uploaded with.",
                    "restore it from a backup of the home; see docs/runbook.md",
                )

    def _head(self, key: str) -> tuple[str | None, str]:
        reply = self._client.head_object(Bucket=self._bucket, Key=self._full(key))
        return reply["Metadata"].get(_DIGEST), reply["ETag"]

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Turn errors of boto3 into the platform's; none of them holds a secret."""
        from boto3.exceptions import Boto3Error

        try:
            yield
        except ClientError as error:
            if is_missing(error):
                raise NotFoundError(f"There is no {key} in {self.uri}.") from error
            raise translate(error, self._endpoint, self._bucket) from error
        except (BotoCoreError, Boto3Error) as error:
            raise translate(error, self._endpoint, self._bucket) from error
        except OSError as error:  # of the local file
            raise StorageError(
                f"{error.filename or key} cannot be accessed: {error.strerror or error}.",
                "look after the local disk, then try again",
            ) from error


def _connect(bucket: str) -> S3Client:
    """Return a client with credentials and endpoint from boto3's own chain."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": 5},
        read_timeout=_READ_TIMEOUT_S,
        max_pool_connections=32,
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except ValueError as error:  # boto3's answer to an endpoint that is no address
        raise translate(error, "", bucket) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
