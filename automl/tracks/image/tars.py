"""Headers of tar archives: read one after the other, each with bounded memory.

Python's `tarfile` keeps all headers, and believes what they say of the size of further headers;
the formats: POSIX.1-2017, pax, and "Basic Tar Format" of the GNU tar manual.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from automl.errors import DataError
from automl.tracks.image.extents import MOST_NAME_BYTES, TAR_BLOCK, Extent, Method
from automl.tracks.image.zips import Member

_MOST_HEADER_BYTES = 2**20  # of a header that goes before a member's own
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_PAX = {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}
_LINKS = {tarfile.LNKTYPE, tarfile.SYMTYPE}
_SPECIAL = {tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE}
_FILES = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
_SPARSE = "GNU.sparse."
_AGAIN = "copy it again from where it came, or make it anew"
_COMPRESSED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7z": "xz", b"\x28\xb5\x2f\xfd": "zstd",
}  # fmt: skip


@dataclass(slots=True)
class _Next:
    """Words of headers about the member that follows them.

    Attributes:
        name: its name; "" if they do not tell.
        size_bytes: its size; -1 if they do not tell.
        is_sparse: whether only a part of its content is stored.
    """

    name: str = ""
    size_bytes: int = -1
    is_sparse: bool = False


@dataclass(slots=True)
class _Tar:
    """An archive while it is read.

    Attributes:
        file: the archive.
        size_bytes: its size.
        name: what messages call it.
        at: first byte that was not looked at.
        next: what headers say of the member that follows.
    """

    file: BinaryIO
    size_bytes: int
    name: str
    at: int = 0
    next: _Next = field(default_factory=_Next)

    def block(self) -> bytes:
        """Return the next block."""
        self.file.seek(self.at)
        block = self.file.read(TAR_BLOCK)
        if len(block) < TAR_BLOCK:
            raise self.damaged("it breaks off")
        self.at += TAR_BLOCK
        return block

    def skip(self, size_bytes: int) -> None:
        """Go on after content of a size."""
        self.at += -(-size_bytes // TAR_BLOCK) * TAR_BLOCK
        if self.at > self.size_bytes:
            raise self.damaged("it breaks off within its last member")

    def damaged(self, why: str) -> DataError:
        """Return the error for an archive that is none."""
        return DataError(f"{self.name} is no whole tar archive: {why}.", _AGAIN)


def read_tar(file: BinaryIO, size_bytes: int, name: str) -> Iterator[Member]:
    """Yield the members of a tar archive in their order; folders are none.

    Args:
        file: the archive.
        size_bytes: its size.
        name: what messages call it.

    Raises:
        DataError: it is no whole tar archive.
    """
    tar = _Tar(file, size_bytes, name)
    while True:
        block = tar.block()
        if not any(block):
            _check_end(tar)
            return
        header = _header(tar, block)
        if header.type in _PAX | {_LONG_NAME, _LONG_LINK, tarfile.XGLTYPE}:
            _read_words(tar, header)
            continue
        member = _member(tar, header, zlib.crc32(block))
        tar.next = _Next()
        if member is not None:
            yield member


def _header(tar: _Tar, block: bytes) -> tarfile.TarInfo:
    for signature, kind in _COMPRESSED.items():
        if tar.at == TAR_BLOCK and block.startswith(signature):
            raise DataError(
                f"{tar.name} is compressed with {kind}, so that its members cannot be found.",
                "unpack it once, so that it is a plain .tar; or make a .zip, which is compressed "
                "member by member",
            )
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise tar.damaged(f"byte {tar.at - TAR_BLOCK:,} begins no member ({error})") from error
    if header.size < 0:
        raise tar.damaged(f"the member at byte {tar.at - TAR_BLOCK:,} has less than no bytes")
    if header.type == tarfile.GNUTYPE_SPARSE:
        raise DataError(f"{tar.name} has sparse files.", "make it again without --sparse")
    return header


def _read_words(tar: _Tar, header: tarfile.TarInfo) -> None:
    """Take in a header that tells of the member after it."""
    if header.size > _MOST_HEADER_BYTES:
        raise tar.damaged(f"the header at byte {tar.at - TAR_BLOCK:,} has {header.size:,} bytes")
    tar.file.seek(tar.at)
    words = tar.file.read(header.size)
    tar.skip(header.size)
    if header.type == _LONG_NAME:
        tar.next.name = words.partition(b"\0")[0].decode(errors="surrogateescape")
    elif header.type in _PAX:
        for keyword, value in _records(tar, words):
            if keyword == "path":
                tar.next.name = value.decode(errors="surrogateescape")
            elif keyword == "size" and value.isdigit() and len(value) < 20:
                tar.next.size_bytes = int(value)
            elif keyword.startswith(_SPARSE):
                tar.next.is_sparse = True


def _records(tar: _Tar, words: bytes) -> Iterator[tuple[str, bytes]]:
    r"""Yield keywords and values of a pax header: `length keyword=value\n` each."""
    while words:
        length, blank, _ = words.partition(b" ")
        size = int(length) if blank and length.isdigit() and len(length) < 8 else 0
        keyword, sign, value = words[len(length) + 1 : size].partition(b"=")
        if size > len(words) or not sign or not value.endswith(b"\n"):
            raise tar.damaged(f"the header before byte {tar.at:,} cannot be read")
        yield keyword.decode(errors="replace"), value[:-1]
        words = words[size:]


def _member(tar: _Tar, header: tarfile.TarInfo, check: int) -> Member | None:
    """Return the member that a header begins, and go on after it; None for a folder."""
    name = tar.next.name or header.name
    is_file = header.type in _FILES
    has_content = is_file or header.type not in tarfile.SUPPORTED_TYPES
    told = tar.next.size_bytes if tar.next.size_bytes >= 0 else header.size
    size = told if has_content else 0
    extent = Extent(Method.TAR, tar.at, size, size, check)
    tar.skip(size)
    if header.type == tarfile.DIRTYPE or (is_file and name.endswith("/")):
        return None
    why = ""
    if header.type in _LINKS:
        why = "is a link, and links in archives are not followed"
    elif header.type in _SPECIAL:
        why = "is neither a file nor a folder"
    elif not is_file:
        why = f"is of an unusual kind ({header.type!r})"
    elif tar.next.is_sparse:
        why = "is a sparse file; make the archive again without --sparse"
    elif len(name) > MOST_NAME_BYTES:
        why = f"has a name of {len(name):,} letters"
    return Member(name, extent, unreadable=why)


def _check_end(tar: _Tar) -> None:
    """Refuse what comes after the end: most programs would not see it either."""
    tar.file.seek(tar.at)
    if any(tar.file.read(2**16)):
        raise DataError(
            f"{tar.name} has something after its end, at byte {tar.at:,} or later.",
            "it may be several archives in one file: join them with tar --concatenate",
        )
