"""Places of members in archives, and how their content is read from there."""

from __future__ import annotations

import struct
import zlib
from dataclasses import astuple, dataclass
from enum import IntEnum
from typing import Self

from automl.data.files import SourceStore
from automl.errors import DataError

TAR_BLOCK = 512
MOST_NAME_BYTES = 4096  # of a member; Linux opens no longer path
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_EXTRA = 256  # bytes of a local header's extra field that are read at once
_MARK = "@"


class Method(IntEnum):
    """Form in which a member's content is stored, with the numbers that zip archives use."""

    STORED = 0
    DEFLATED = 8
    TAR = 1000


@dataclass(frozen=True, slots=True)
class Extent:
    """Place of a member's content.

    Attributes:
        method: how it is stored.
        start: of the member's header in a zip archive, of its content in a tar archive.
        stored_bytes: size of what is stored.
        size_bytes: size of the content.
        check: CRC-32 of the content in a zip archive, of the member's header in a tar archive.
    """

    method: Method
    start: int
    stored_bytes: int
    size_bytes: int
    check: int

    def key(self, name: str) -> str:
        """Return the key under which `ArchiveFiles` gives the member."""
        return name + _MARK + ".".join(str(int(number)) for number in astuple(self))

    @classmethod
    def of_key(cls, key: str) -> Self:
        """Return the place that a key tells."""
        method, *numbers = map(int, key.rpartition(_MARK)[2].split("."))
        return cls(Method(method), *numbers)

    def read(self, store: SourceStore, archive: str) -> bytes:
        """Return the member's content; no more memory is taken than its size and what is stored.

        Args:
            store: holds the archive.
            archive: its key.

        Raises:
            DataError: the content is not what the archive's directory says; the message is why.
        """
        if self.method is Method.TAR:
            return self._from_tar(store, archive)
        stored = self._stored(store, archive)
        content = stored if self.method is Method.STORED else _inflate(stored, self.size_bytes)
        if len(content) != self.size_bytes or zlib.crc32(content) != self.check:
            raise DataError("it is damaged in the archive: its checksum is another")
        return content

    def _from_tar(self, store: SourceStore, archive: str) -> bytes:
        start = self.start - TAR_BLOCK
        data = store.get_range(archive, start, TAR_BLOCK + self.size_bytes)
        if zlib.crc32(data[:TAR_BLOCK]) != self.check:
            raise DataError("the archive changed while it was read")
        if len(data) < TAR_BLOCK + self.size_bytes:
            raise DataError("the archive breaks off within it")
        return data[TAR_BLOCK:]

    def _stored(self, store: SourceStore, archive: str) -> bytes:
        """Return the bytes of a member of a zip archive, after its local header."""
        wanted = _LOCAL_HEADER.size + MOST_NAME_BYTES // 16 + _LOCAL_EXTRA + self.stored_bytes
        data = store.get_range(archive, self.start, wanted)
        if len(data) < _LOCAL_HEADER.size:
            raise DataError("the archive breaks off before it")
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(data)
        if signature != b"PK\x03\x04":
            raise DataError("it is not where the archive's directory says, or the archive changed")
        start = _LOCAL_HEADER.size + name_bytes + extra_bytes
        missing = start + self.stored_bytes - len(data)
        if missing > 0:
            data += store.get_range(archive, self.start + len(data), missing)
        stored = data[start : start + self.stored_bytes]
        if len(stored) < self.stored_bytes:
            raise DataError("the archive breaks off within it")
        return stored


def _inflate(stored: bytes, size_bytes: int) -> bytes:
    """Return what deflated bytes expand to, of which no more than a size is made."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflater.decompress(stored, size_bytes + 1)
    except zlib.error as error:
        raise DataError(f"it is damaged in the archive: {error}") from error
    if len(content) > size_bytes:
        raise DataError(f"it expands to more than the {size_bytes:,} bytes that the archive says")
    return content
