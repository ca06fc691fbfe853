"""The one interface behind which all durable state lives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from automl.errors import ConfigError

_MAX_KEY_BYTES = 1024  # the limit of S3


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The content of one key.

    Attributes:
        data: the bytes.
        etag: opaque tag of the content, for `put_if_match`.
        modified: when it was written, by the store's clock, in UTC.
    """

    data: bytes
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """One line of a listing.

    Attributes:
        key: the whole key.
        size_bytes: size of the content.
        modified: when it was written, by the store's clock, in UTC.
        etag: changes whenever the content does. It need not equal the etag of `get`: a folder's
            listing does not read the files.
        problem: why the content may not be read, as the end of a sentence; "" if it may.
        unreadable: why nobody could read the content, likewise; "" if it can be tried.
    """

    key: str
    size_bytes: int
    modified: datetime
    etag: str
    problem: str = ""
    unreadable: str = ""


class ObjectStore(Protocol):
    """Bytes under keys; safe for many processes on many machines.

    Keys are relative posix paths of at most 1024 bytes, without `.`, `..` and empty segments. No
    key may be a folder of another. A reader never sees half a write, and a write is durable when
    the method returns. All methods raise StorageAccessError for wrong credentials, places and
    rights, and StorageError for trouble that may pass.
    """

    @property
    def uri(self) -> str:
        """Place where the keys start: `s3://bucket/prefix` or an absolute folder; no secrets."""

    def get(self, key: str) -> StoredObject:
        """Return the content of a key.

        Raises:
            NotFoundError: there is no such key.
        """

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return a part of the content of a key, unchecked: only whole contents have a digest.

        Args:
            key: the key.
            start: first byte, from 0.
            size_bytes: 1 or more; where the content ends before, less is returned.

        Raises:
            NotFoundError: there is no such key.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write a key, whatever it held."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Write a key that does not exist yet, and return its etag.

        When the reply to a write that succeeded is lost and the request is repeated, the
        writer sees PreconditionFailedError although the write is its own. A writer that must
        know embeds a unique nonce in `data` and compares it with the stored one.

        Raises:
            PreconditionFailedError: the key exists, or is being created by somebody else.
        """

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        """Write a key whose content still has `etag`, and return its new etag.

        Equal contents have equal etags: a writer whose rewrite others must notice embeds a nonce.
        A lost reply has the same effect as for `put_if_absent`.

        Raises:
            PreconditionFailedError: the content has changed, or is gone.
        """

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key.

        Args:
            prefix: beginning of a key, not necessarily of whole segments; "" lists everything.
            start_after: only later keys are listed; the key itself need not exist.
        """

    def delete(self, key: str) -> None:
        """Remove a key; one that does not exist is fine."""

    def upload(self, path: Path, key: str) -> None:
        """Write the content of a local file, of any size, to a key."""

    def download(self, key: str, path: Path) -> None:
        """Write the content of a key to a local file, which appears whole or not at all.

        Raises:
            NotFoundError: there is no such key.
        """

    def now(self) -> datetime:
        """Return the present time in UTC by the clock that also sets `modified`."""


def check_key(key: str) -> None:
    """Refuse what is not a key.

    Raises:
        ConfigError: it is absolute, empty or too long, or has a segment that is `.`, `..` or empty.
    """
    if not key or "\0" in key or any(part in {"", ".", ".."} for part in key.split("/")):
        raise ConfigError(
            f"{key!r} is not a key of an object store.",
            "use a relative path without '.', '..' and empty segments",
        )
    if len(key.encode()) > _MAX_KEY_BYTES:
        raise ConfigError(
            f"The key {key[:60]!r}… has more than {_MAX_KEY_BYTES} bytes.", "use a shorter one"
        )


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that no key can start with.

    Raises:
        ConfigError: it is absolute, or has a segment that is `.`, `..` or empty.
    """
    folder = prefix.rpartition("/")[0] if "/" in prefix else None
    if folder is not None:
        check_key(folder)
