"""An object store in a bucket of S3 or of a server that speaks S3 with conditional writes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from automl.errors import (
    DamagedDataError,
    NotFoundError,
    PreconditionFailedError,
    StorageAccessError,
    StorageError,
)
from automl.storage.durable import make_folder, replace_file, sync_file, temporary_name
from automl.storage.objects import ObjectEntry, StoredObject, check_key, check_prefix
from automl.storage.s3 import transfer
from automl.storage.s3.errors import is_conflict, is_missing, place, translate
from automl.storage.s3.retries import DEFAULT_LIMITS, OutOfTimeError, Retries, S3Limits
from automl.storage.s3.transfer import Connection, DamagedBodyError, RangeIgnoredError, Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class S3ObjectStore:
    """Objects below a prefix of a bucket.

    Credentials, endpoint and region come from boto3's own chain (environment, profile, role).
    An instance can be pickled and used by many threads; every process connects for itself.
    Requests that fail in a way that may pass are repeated with full jitter for `limits.total_s`,
    then a retryable StorageError says what was tried. `docs/s3.md` has the details.

    Args:
        bucket: name of an existing bucket.
        prefix: beginning of all keys, without slashes at its ends; "" for the whole bucket.
        limits: how patient the store is with its server.

    Raises:
        ConfigError: the prefix is no path of keys.
    """

    def __init__(self, bucket: str, prefix: str = "", limits: S3Limits = DEFAULT_LIMITS) -> None:
        self._bucket, self._prefix, self._limits = bucket, prefix.strip("/"), limits
        if self._prefix:
            check_key(self._prefix)
        self._lock = threading.Lock()
        self._connected: tuple[int, Connection] | None = None

    def __getstate__(self) -> tuple[str, str, S3Limits]:
        return self._bucket, self._prefix, self._limits

    def __setstate__(self, state: tuple[str, str, S3Limits]) -> None:
        self._bucket, self._prefix, self._limits = state
        self._lock, self._connected = threading.Lock(), None

    @property
    def uri(self) -> str:
        """The bucket and the prefix."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, key: str) -> StoredObject:
        """Return the content of a key; raise NotFoundError if there is none.

        Raises:
            DamagedDataError: the content is not what was written.
        """
        with self._translated(key):
            data, reply = transfer.read(self._connection, self._target(key))
            return StoredObject(data, reply["ETag"], reply["LastModified"].astimezone(UTC))

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return a part of the content of a key; raise NotFoundError if there is none.

        Raises:
            StorageAccessError: the server cannot send parts.
        """
        with self._translated(key):
            return transfer.read_range(self._connection, self._target(key), start, size_bytes)

    def put(self, key: str, data: bytes) -> None:
        """Write a key, whatever it held."""
        with self._translated(key):
            self._client.put_object(**self._target(key), Body=data, Metadata=_metadata(data))

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a key that does not exist yet, or raise PreconditionFailedError.

        A request whose reply was lost is repeated; see the protocol for what that means.
        """
        refusal = f"{key} exists in {self.uri} already, or is being created."
        with self._on_condition(key, refusal):
            return self._client.put_object(
                **self._target(key), Body=data, Metadata=_metadata(data), IfNoneMatch="*"
            )["ETag"]

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Write a key that still has `etag`, or raise PreconditionFailedError."""
        refusal = f"{key} in {self.uri} has changed or is gone."
        with self._on_condition(key, refusal):
            return self._client.put_object(
                **self._target(key), Body=data, Metadata=_metadata(data), IfMatch=etag
            )["ETag"]

    @contextmanager
    def _on_condition(self, key: str, refusal: str) -> Iterator[None]:
        """Raise PreconditionFailedError for a write whose condition does not hold."""
        with self._translated(key):
            try:
                yield
            except ClientError as error:
                if is_conflict(error):
                    raise PreconditionFailedError(refusal) from error
                raise

    def abandoned_uploads(self, older_than: timedelta) -> list[str]:
        """Return the keys of uploads that were never completed, sorted; see the next method."""
        before = self.now() - older_than
        with self._translated(""):
            found = transfer.old_uploads(self._connection, self._bucket, self._base, before)
            return sorted(key.removeprefix(self._base) for key, _ in found)

    def abort_abandoned_uploads(self, older_than: timedelta) -> list[str]:
        """Remove the parts of uploads that were never completed, which cost space unseen.

        Args:
            older_than: how long ago an upload must have begun, by the server's clock; more than
                the longest upload takes.

        Returns:
            The keys whose uploads were aborted, sorted; what is stored under them is untouched.
        """
        before = self.now() - older_than
        with self._translated(""):
            found = transfer.abort_uploads(self._connection, self._bucket, self._base, before)
        return sorted(key.removeprefix(self._base) for key in found)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key.

        All pages are read first: some servers sort folder by folder, and understand `StartAfter`
        in that order, so that the order and the start are made here. Entries wait for that as
        bytes, which take a third of the memory.
        """
        check_prefix(prefix)
        found = [_packed(entry) for entry in self._pages(prefix) if entry.key > start_after]
        found.sort(reverse=True)
        while found:
            yield _unpacked(found.pop())

    def delete(self, key: str) -> None:
        """Remove a key; one that does not exist is fine."""
        with self._translated(key):
            self._client.delete_object(**self._target(key))

    def upload(self, path: Path, key: str) -> None:
        """Write the content of a local file to a key, in parts if it is large."""
        with self._translated(key):
            transfer.upload(self._connection, path, self._target(key))

    def download(self, key: str, path: Path) -> None:
        """Write the content of a key to a local file; raise NotFoundError if there is none.

        Raises:
            DamagedDataError: the content is not what was written.
        """
        temporary = temporary_name(path.parent)
        with self._translated(key):
            make_folder(path.parent)
            try:
                transfer.download(self._connection, self._target(key), temporary)
                sync_file(temporary)
                replace_file(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def now(self) -> datetime:
        """Return the present time by the server's clock, to the second."""
        with self._translated(""):
            try:
                metadata = self._client.head_bucket(Bucket=self._bucket)["ResponseMetadata"]
            except ClientError:  # a reply to HEAD cannot say why it refuses; one to a listing does
                metadata = self._client.list_objects_v2(
                    Bucket=self._bucket, Prefix=self._base, MaxKeys=1
                )["ResponseMetadata"]
        text = metadata["HTTPHeaders"].get("date", "")
        try:
            return parsedate_to_datetime(text).astimezone(UTC)
        except ValueError as error:
            raise StorageError(
                f"{place(self._endpoint, self._bucket)} sent no valid date: {text!r}.",
                "a proxy may have removed the Date header",
            ) from error

    @property
    def _connection(self) -> Connection:
        """The connection of this process; one made before a fork must not be shared."""
        with self._lock:
            if self._connected is None or self._connected[0] != os.getpid():
                self._connected = os.getpid(), _connect(self._bucket, self._limits)
            return self._connected[1]

    @property
    def _client(self) -> S3Client:
        return self._connection.client

    @property
    def _endpoint(self) -> str:
        return self._connected[1].client.meta.endpoint_url if self._connected else ""

    @property
    def _base(self) -> str:
        return f"{self._prefix}/" if self._prefix else ""

    def _target(self, key: str) -> Target:
        check_key(key)
        check_key(self._base + key)
        return {"Bucket": self._bucket, "Key": self._base + key}

    def _pages(self, prefix: str) -> Iterator[ObjectEntry]:
        base = self._base
        with self._translated(""):
            for page in transfer.list_pages(self._connection, self._bucket, base + prefix):
                for entry in page.get("Contents", ()):
                    key = entry["Key"].removeprefix(base)
                    if key and not key.endswith("/"):  # consoles create such keys as folders
                        modified = entry["LastModified"].astimezone(UTC)
                        yield ObjectEntry(key, entry["Size"], modified, entry["ETag"])

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Turn errors of boto3 into the platform's; none of them holds a secret.

        Args:
            key: what the block is about; "" if not one key.
        """
        from boto3.exceptions import Boto3Error

        try:
            yield
        except DamagedBodyError as error:
            raise DamagedDataError(
                f"{key} in {self.uri} does not have the SHA-256 it was written with.",
                "restore it from a backup of the home; see docs/runbook.md",
            ) from error
        except RangeIgnoredError as error:
            raise StorageAccessError(
                f"{place(self._endpoint, self._bucket)} sends all of {key} instead of a part.",
                "use a server that obeys the header Range, or a local copy",
            ) from error
        except ClientError as error:
            if is_missing(error):
                raise NotFoundError(f"There is no {key} in {self.uri}.") from error
            raise translate(error, self._endpoint, self._bucket, key) from error
        except (BotoCoreError, Boto3Error, OutOfTimeError) as error:
            raise translate(error, self._endpoint, self._bucket, key) from error
        except OSError as error:  # of the local file
            raise StorageError(
                f"{error.filename or key} cannot be accessed: {error.strerror or error}.",
                "look after the local disk, then try again",
            ) from error


def _connect(bucket: str, limits: S3Limits) -> Connection:
    """Return a client with credentials and endpoint from boto3's own chain."""
    import boto3
    from botocore.config import Config
    from botocore.session import get_session

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1},  # `Retries` decides
        connect_timeout=limits.connect_s,
        read_timeout=limits.read_s,
        max_pool_connections=32,
    )
    session = get_session()
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_moment)  # a listing has one in each line
    try:
        client = boto3.session.Session(botocore_session=session).client("s3", config=config)
    except ValueError as error:  # boto3's answer to an endpoint that is no address
        raise translate(error, "", bucket) from error
    # botocore asks HeadBucket for the region when it is redirected, even if HeadBucket itself was,
    # and so without end where the reply names no region
    client.meta.events.register("before-call.s3.HeadBucket", _leave_redirected)
    retries = Retries(limits)
    retries.watch(client)
    return Connection(client, retries)


def _moment(text: Any) -> datetime:
    """Return what a timestamp says; botocore's own parser takes twenty times as long for ISO 8601.

    Args:
        text: as the server writes it, a number of seconds where it is no text.
    """
    from botocore.utils import parse_timestamp

    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return parse_timestamp(text)


def _leave_redirected(params: dict[str, Any], **_: object) -> None:
    params["context"]["s3_redirect"]["redirected"] = True


def _metadata(data: bytes) -> dict[str, str]:
    return {transfer.DIGEST: hashlib.sha256(data).hexdigest()}


def _packed(entry: ObjectEntry) -> bytes:
    """Return an entry as bytes that sort as the keys do."""
    written = (entry.modified - _EPOCH) // timedelta(microseconds=1)
    return "\0".join((entry.key, f"{entry.size_bytes:x}", f"{written:x}", entry.etag)).encode()


def _unpacked(packed: bytes) -> ObjectEntry:
    key, size, written, etag = packed.decode().rsplit("\0", 3)
    modified = _EPOCH + timedelta(microseconds=int(written, 16))
    return ObjectEntry(key, int(size, 16), modified, etag)
