"""Files in stores that are read in parts, as if they were open."""

from __future__ import annotations

import io
from typing import Any

from automl.data.files import SourceStore


class RangedFile(io.RawIOBase):
    """File that is fetched from its store as it is read; read only.

    Each read is one request, so it is mostly wrapped in an `io.BufferedReader`.

    Args:
        store: holds it.
        key: its key there.
        size_bytes: its size.
    """

    def __init__(self, store: SourceStore, key: str, size_bytes: int) -> None:
        super().__init__()
        self._store, self._key, self._size = store, key, size_bytes
        self._at = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can be read from anywhere."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what comes next, and return how much that was; 0 at the end."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._size - self._at)
        if wanted <= 0:
            return 0
        data = self._store.get_range(self._key, self._at, wanted)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place and return it, counted from the start."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"{start + offset} is before the file begins")
        self._at = start + offset
        return self._at
