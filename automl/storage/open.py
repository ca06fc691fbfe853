"""Opening the store and the home that settings name."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from automl.domain.settings import Settings
from automl.errors import ConfigError
from automl.storage.file import FileObjectStore
from automl.storage.home import Home, ObjectHome
from automl.storage.objects import ObjectStore


def open_home(settings: Settings, patience_s: float | None = None) -> Home:
    """Return the home that settings name; nothing is read or written yet.

    Args:
        settings: of this process.
        patience_s: how long trouble that may pass is waited out; None for the usual time.

    Raises:
        ConfigError: they name no store or no database; the message holds nothing of its address.
    """
    store = open_store(settings.home, patience_s)
    if settings.study_log is None:
        return ObjectHome(store)
    from automl.storage.sql.database import PATIENCE_S, Database  # sqlalchemy is slow to import
    from automl.storage.sql.home import SqlHome

    patience_s = PATIENCE_S if patience_s is None else patience_s
    return SqlHome(store, Database(settings.study_log, patience_s))


def open_store(uri: str, patience_s: float | None = None) -> ObjectStore:
    """Return the store that `uri` names; nothing is read or written yet.

    Args:
        uri: a folder, `file:///folder` or `s3://bucket/prefix`.
        patience_s: how long trouble that may pass is waited out; None for the usual time.

    Raises:
        ConfigError: it names no store.
    """
    hint = "use a folder, file:///folder or s3://bucket/prefix"
    if uri.startswith("s3://"):
        from automl.storage.s3.objects import S3ObjectStore  # boto3 is slow to import
        from automl.storage.s3.retries import DEFAULT_LIMITS, S3Limits

        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket or "@" in bucket or "?" in uri:
            raise ConfigError("The s3:// address has no plain bucket name.", hint)
        limits = DEFAULT_LIMITS if patience_s is None else S3Limits(total_s=patience_s)
        return S3ObjectStore(bucket, prefix.strip("/"), limits)
    if uri.startswith("file:"):
        parts = urlsplit(uri)
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise ConfigError(f"{uri!r} is not an absolute folder of this machine.", hint)
        return FileObjectStore(Path(unquote(parts.path)))
    if not uri or "://" in uri:
        raise ConfigError(f"{uri.partition('://')[0]!r} names no kind of store.", hint)
    return FileObjectStore(Path(uri))
