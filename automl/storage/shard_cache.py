"""Copies of shards on this machine, so that a slice need not fetch again what the last one had.

Shards never change, and their keys tell their content. So a copy is right or it is thrown away:
whoever may have written it, its digest is computed at every read. Where the cache cannot be used
(no room, no rights, somebody else's folder) the store is read as if there were none.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from automl.domain.layout import shard_digest
from automl.domain.settings import NO_CACHE, Settings
from automl.storage.objects import ObjectEntry, ObjectStore

_LOCK, _PARTIAL = ".lock", ".partial"
_LOCK_S = 5.0  # how long a copy waits for its turn; then it is not kept
_PRIVATE = 0o700

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShardCache:
    """Folder of copies, each named by its digest; safe for many processes.

    Attributes:
        folder: of this user alone; it is made when the first copy is kept.
        most_bytes: that all copies take together, at most half of what the disk has left for them.
    """

    folder: Path
    most_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> ShardCache | None:
        """Return the cache that settings name; None if they want none.

        Every user has a folder of his own there, so that no other may read or replace a copy.
        """
        if settings.cache == NO_CACHE:
            return None
        parent = Path(settings.cache or tempfile.gettempdir())
        return cls(parent / f"automl-cache-{os.geteuid()}", settings.cache_bytes)

    def read(self, digest: str) -> bytes | None:
        """Return the content with a digest; None if there is no copy that can be believed.

        Args:
            digest: beginning of the SHA-256 in hexadecimal.
        """
        path = self.folder / digest
        with suppress(OSError):
            if not self._is_private():
                return None
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return None
                data = file.read()
            if _has_digest(data, digest):
                os.utime(path)
                return data
            log.warning("The copy %s is damaged, and thrown away", path)
            path.unlink()
        return None

    def keep(self, digest: str, data: bytes) -> None:
        """Keep a copy in place of those that have not been read for longest.

        Nothing happens if it is not what its digest says, or cannot be kept.

        Args:
            digest: beginning of the SHA-256 in hexadecimal.
            data: the content.
        """
        if not _has_digest(data, digest):
            return
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.folder.mkdir(mode=_PRIVATE)
            if not self._is_private():
                log.warning(
                    "%s is no private folder of this user, so that no shard is kept there",
                    self.folder,
                )
                return
            with self._locked() as is_mine:
                if is_mine and self._make_room(len(data)):
                    self._write(digest, data)
        except OSError as error:
            log.warning("No copy of a shard is kept in %s: %s", self.folder, error.strerror)

    def _write(self, digest: str, data: bytes) -> None:
        """Write a copy, which appears whole or not at all."""
        partial = self.folder / (digest + _PARTIAL)
        try:
            partial.write_bytes(data)
            partial.replace(self.folder / digest)
        finally:
            partial.unlink(missing_ok=True)  # of a full disk

    def _is_private(self) -> bool:
        """Return whether the folder is this user's and no one else may look or write there."""
        try:
            status = self.folder.lstat()
        except FileNotFoundError:
            return False
        is_mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        return is_mine and not status.st_mode & 0o077

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Let one process at a time write; yield whether it is this one's turn."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.folder / _LOCK, flags, 0o600)
        give_up_s = time.monotonic() + _LOCK_S
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > give_up_s:
                        yield False
                        return
                    time.sleep(0.02)
                else:
                    break
            yield True
        finally:
            os.close(descriptor)  # frees the lock

    def _make_room(self, size_bytes: int) -> bool:
        """Remove the oldest copies until one of this size fits; return whether it does.

        Whoever holds the lock is the only writer: a partial copy is of one that died.
        """
        kept: list[tuple[int, int, Path]] = []
        for path in self.folder.iterdir():
            if path.name.endswith(_PARTIAL):
                path.unlink(missing_ok=True)
            elif path.name != _LOCK:
                with suppress(FileNotFoundError):  # found damaged by another process
                    status = path.lstat()
                    kept.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in kept)
        most = min(self.most_bytes, (shutil.disk_usage(self.folder).free + total) // 2)
        if size_bytes > most:
            return False
        for _, size, path in sorted(kept):
            if total + size_bytes <= most:
                break
            path.unlink(missing_ok=True)
            total -= size
        return True


@dataclass(frozen=True, slots=True)
class Copy:
    """Content of a shard.

    Attributes:
        data: the bytes.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class CachedShards:
    """A store whose shards are copied to this machine when they are read; read only.

    Attributes:
        store: the store.
        cache: the copies.
    """

    store: ObjectStore
    cache: ShardCache

    @property
    def uri(self) -> str:
        """Place where the keys start."""
        return self.store.uri

    def get(self, key: str) -> Copy:
        """Return the content of a key; raise NotFoundError if there is none."""
        digest = shard_digest(key)
        data = None if digest is None else self.cache.read(digest)
        if data is None:
            data = self.store.get(key).data
            if digest is not None:
                self.cache.keep(digest, data)
        return Copy(data)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key."""
        return self.store.list(prefix, start_after)


def snapshot_files(store: ObjectStore, settings: Settings) -> CachedShards | ObjectStore:
    """Return what snapshots are read from: the store, with copies where it is not on this machine.

    Args:
        store: the home's objects.
        settings: where copies are kept, and how many.
    """
    cache = ShardCache.of(settings)
    is_far = store.uri.startswith("s3://")
    return store if cache is None or not is_far else CachedShards(store, cache)


def _has_digest(data: bytes, digest: str) -> bool:
    return hashlib.sha256(data).hexdigest().startswith(digest)
