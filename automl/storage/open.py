"""From settings to a store and a home."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from automl.errors import ConfigError
from automl.storage.file import FileObjectStore
from automl.storage.home import Home, ObjectHome
from automl.storage.objects import ObjectStore


def open_home(uri: str) -> Home:
    """Return the home under `uri`; nothing is read or written yet.

    Args:
        uri: as for `open_store`.

    Raises:
        ConfigError: it names no store.
    """
    return ObjectHome(open_store(uri))


def open_store(uri: str) -> ObjectStore:
    """Return the store that `uri` names; nothing is read or written yet.

    Args:
        uri: a folder, `file:///folder` or `s3://bucket/prefix`.

    Raises:
        ConfigError: it names no store.
    """
    hint = "use a folder, file:///folder or s3://bucket/prefix"
    if uri.startswith("s3://"):
        from automl.storage.s3 import S3ObjectStore  # boto3 is slow to import

        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket or "@" in bucket or "?" in uri:
            raise ConfigError("The s3:// address has no plain bucket name.", hint)
        return S3ObjectStore(bucket, prefix.strip("/"))
    if uri.startswith("file:"):
        parts = urlsplit(uri)
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise ConfigError(f"{uri!r} is not an absolute folder of this machine.", hint)
        return FileObjectStore(Path(unquote(parts.path)))
    if not uri or "://" in uri:
        raise ConfigError(f"{uri.partition('://')[0]!r} names no kind of store.", hint)
    return FileObjectStore(Path(uri))
