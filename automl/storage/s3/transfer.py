"""Files to and from S3: uploads in parts, downloads that continue where they broke off."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypedDict

from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError

from automl.storage.s3.retries import Budget, Retries, code_of, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef

DIGEST = "sha256"  # name of the metadata entry
BROKEN_BODY = (  # what may happen after an answer has begun
    ConnectionClosedError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
PART_BYTES = 16 * 2**20  # files of more than one part are uploaded in parts
_CONCURRENT_PARTS = 4
_CHUNK_BYTES = 2**20
_REPLACED = {412, 416}  # answers to a request for the rest: the object has been replaced
_BEYOND_THE_END, _PART = 416, 206  # answers to a request for a part


@dataclass(frozen=True, slots=True)
class Connection:
    """A client and what decides about its retries."""

    client: S3Client
    retries: Retries


class Target(TypedDict):
    """An object, as boto3 wants it named."""

    Bucket: str
    Key: str


class DamagedBodyError(Exception):
    """The content of an object is not what was written."""


class RangeIgnoredError(Exception):
    """A server answered a request for a part with the whole."""


def upload(connection: Connection, path: Path, target: Target) -> None:
    """Write the content of a file to an object, with its SHA-256 as metadata.

    Each request has the whole time of a request. The parts of an upload that fails are removed,
    unless the server is away or this process dies: see `abort_uploads`.
    """
    from boto3.exceptions import S3UploadFailedError
    from boto3.s3.transfer import TransferConfig

    digest = file_digest(path)
    config = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=_CONCURRENT_PARTS,
        preferred_transfer_client="classic",  # the other one retries by its own rules
    )
    try:
        connection.client.upload_file(
            str(path), **target, Config=config, ExtraArgs={"Metadata": {DIGEST: digest}}
        )
    except S3UploadFailedError as error:
        # the reply to the last request was lost, and its repetition found the upload completed
        is_gone = (
            isinstance(error.__context__, ClientError)
            and code_of(error.__context__) == "NoSuchUpload"
        )
        if not is_gone or not _holds(connection, target, digest):
            raise


def _holds(connection: Connection, target: Target, digest: str) -> bool:
    return connection.client.head_object(**target)["Metadata"].get(DIGEST) == digest


def download(connection: Connection, target: Target, path: Path) -> None:
    """Write an object to a file; time counts from the last byte that came.

    Raises:
        DamagedBodyError: the content is not what was written.
    """
    with path.open("wb") as file, connection.retries.one_budget() as budget:
        etag = ""
        while True:
            try:
                etag, is_whole = _continue(connection, target, file, etag, budget)
            except ClientError as error:
                if not file.tell() or status_of(error) not in _REPLACED:
                    raise
                budget.pause("GetObject", error)
                etag, is_whole = "", False  # begin anew
                file.seek(0)
                file.truncate()
            if is_whole:
                return


def _continue(
    connection: Connection, target: Target, file: BinaryIO, etag: str, budget: Budget
) -> tuple[str, bool]:
    """Ask for what `file` lacks of the object with `etag`; return its etag and whether all came."""
    start = file.tell()
    if start:
        reply = connection.client.get_object(**target, Range=f"bytes={start}-", IfMatch=etag)
    else:
        reply = connection.client.get_object(**target)
    try:
        for chunk in reply["Body"].iter_chunks(_CHUNK_BYTES):
            file.write(chunk)
            budget.restart()
    except FlexibleChecksumError as error:
        raise DamagedBodyError from error
    except BROKEN_BODY as error:
        budget.pause("GetObject", error)
        return reply["ETag"], False
    file.flush()
    _check(reply, file_digest(Path(file.name)))
    return reply["ETag"], True


def read(connection: Connection, target: Target) -> tuple[bytes, GetObjectOutputTypeDef]:
    """Return the content of an object and the reply that it came with.

    Raises:
        DamagedBodyError: the content is not what was written.
    """
    with connection.retries.one_budget() as budget:
        while True:
            reply = connection.client.get_object(**target)
            try:
                data = reply["Body"].read()
            except FlexibleChecksumError as error:
                raise DamagedBodyError from error
            except BROKEN_BODY as error:
                budget.pause("GetObject", error)
                continue
            _check(reply, hashlib.sha256(data).hexdigest())
            return data, reply


def read_range(connection: Connection, target: Target, start: int, size_bytes: int) -> bytes:
    """Return a part of an object's content, less where the content ends before.

    Raises:
        RangeIgnoredError: the server sends the whole.
    """
    wanted = f"bytes={start}-{start + size_bytes - 1}"
    with connection.retries.one_budget() as budget:
        while True:
            try:
                reply = connection.client.get_object(**target, Range=wanted)
            except ClientError as error:
                if status_of(error) == _BEYOND_THE_END:
                    return b""
                raise
            with closing(reply["Body"]) as body:
                if reply["ResponseMetadata"]["HTTPStatusCode"] != _PART:
                    raise RangeIgnoredError
                try:
                    return body.read()
                except BROKEN_BODY as error:
                    budget.pause("GetObject", error)


def list_pages(
    connection: Connection, bucket: str, prefix: str
) -> Iterator[ListObjectsV2OutputTypeDef]:
    """Yield the pages of a listing; each has the whole time of a request."""
    token = ""
    while True:
        page = _page(connection, bucket, prefix, token)
        yield page
        token = page.get("NextContinuationToken", "")
        if not token:
            return


def _page(
    connection: Connection, bucket: str, prefix: str, token: str
) -> ListObjectsV2OutputTypeDef:
    with connection.retries.one_budget() as budget:
        while True:
            try:
                if token:
                    return connection.client.list_objects_v2(
                        Bucket=bucket, Prefix=prefix, ContinuationToken=token
                    )
                return connection.client.list_objects_v2(Bucket=bucket, Prefix=prefix)
            except ResponseParserError as error:  # the document broke off
                budget.pause("ListObjectsV2", error)


def old_uploads(
    connection: Connection, bucket: str, prefix: str, before: datetime
) -> Iterator[tuple[str, str]]:
    """Yield key and id of the uploads of keys with `prefix` that began before a time."""
    pages = connection.client.get_paginator("list_multipart_uploads")
    for page in pages.paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Uploads", ()):
            if found["Initiated"] < before and found["Key"].startswith(prefix):
                yield found["Key"], found["UploadId"]


def abort_uploads(connection: Connection, bucket: str, prefix: str, before: datetime) -> list[str]:
    """Abort the uploads of keys with `prefix` that began before a time; return the keys."""
    aborted = []
    for key, upload in old_uploads(connection, bucket, prefix, before):
        try:
            connection.client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if code_of(error) != "NoSuchUpload":  # completed or aborted meanwhile
                raise
        else:
            aborted.append(key)
    return aborted


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(reply: GetObjectOutputTypeDef, digest: str) -> None:
    """Compare with the digest that the writer stored; other programs' objects have none."""
    if reply["Metadata"].get(DIGEST, digest) != digest:
        raise DamagedBodyError
