"""Directories of zip archives: read as a stream, so that none takes more memory than its members.

Python's `zipfile` reads the whole directory, whatever size it claims, and makes an object of each
entry before anybody can count them. The format: APPNOTE.TXT of PKWARE, 6.3.10, section 4.3.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from automl.errors import DataError
from automl.tracks.image.extents import MOST_NAME_BYTES, Extent, Method

_END = struct.Struct("<4s4H2LH")  # the record that ends an archive, before its comment
_END_64 = struct.Struct("<4sQ2H2L4Q")  # the same with larger numbers, which lies before it
_LOCATOR_64_BYTES = 20
_ENTRY = struct.Struct("<4s6H3L5H2L")
_MOST_COMMENT = 2**16 - 1
_FULL_16, _FULL_32 = 2**16 - 1, 2**32 - 1  # the number is elsewhere
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_IN_UTF_8 = 0x800
_UNIX, _DOS_HOSTS = 3, {0, 10, 11}
_EXTRA_64 = 1
_AGAIN = "copy it again from where it came, or make it anew"
_HOW_METHODS = "make the archive again with deflate, which is the default of zip"


@dataclass(frozen=True, slots=True)
class Member:
    """File in an archive, as its directory tells of it.

    Attributes:
        name: as it is written there.
        extent: where its content is.
        tag: changes with the content, as far as the directory knows; "" if it does not.
        unreadable: why it cannot be read, as the end of a sentence; "" if it can be tried.
    """

    name: str
    extent: Extent
    tag: str = ""
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class _Directory:
    """Place of the directory.

    Attributes:
        start: where it begins.
        size_bytes: its size.
        entries: their number.
        shift: bytes before the archive, which its numbers do not count.
    """

    start: int
    size_bytes: int
    entries: int
    shift: int


def read_zip(file: BinaryIO, size_bytes: int, name: str) -> Iterator[Member]:
    """Yield the members of a zip archive in the order of its directory; folders are none.

    Args:
        file: the archive.
        size_bytes: its size.
        name: what messages call it.

    Raises:
        DataError: it is no whole zip archive.
    """
    directory = _find_directory(file, size_bytes, name)
    file.seek(directory.start)
    done = entries = 0
    while done < directory.size_bytes:
        fixed = file.read(_ENTRY.size)
        if len(fixed) < _ENTRY.size or fixed[:4] != b"PK\x01\x02":
            raise _damaged(name, f"entry {entries + 1} of its directory is none")
        values = _ENTRY.unpack(fixed)
        sizes = values[10:13]
        texts = file.read(sum(sizes))
        if len(texts) < sum(sizes):
            raise _damaged(name, "its directory breaks off")
        done += len(fixed) + len(texts)
        entries += 1
        member = _member(values, texts[: sizes[0]], texts[sizes[0] : sizes[0] + sizes[1]])
        if member.extent.start + directory.shift + member.extent.stored_bytes > directory.start:
            raise _damaged(name, f"entry {entries} of its directory leads out of it")
        if not member.name.endswith("/"):
            yield _moved(member, directory.shift)
    if done != directory.size_bytes or entries != directory.entries:
        raise _damaged(name, f"its directory has {entries:,} entries, not {directory.entries:,}")


def _damaged(name: str, why: str) -> DataError:
    return DataError(f"{name} is no whole zip archive: {why}.", _AGAIN)


def _find_directory(file: BinaryIO, size_bytes: int, name: str) -> _Directory:
    tail_start = max(0, size_bytes - _END.size - _MOST_COMMENT)
    file.seek(tail_start)
    tail = file.read(size_bytes - tail_start)
    at = len(tail)
    while (at := tail.rfind(b"PK\x05\x06", 0, at)) >= 0:
        if at + _END.size > len(tail):
            continue
        values = _END.unpack_from(tail, at)
        if at + _END.size + values[7] == len(tail):  # else the letters of a comment
            return _directory(file, tail_start + at, values, name)
    raise _damaged(name, "it does not end as one")


def _directory(file: BinaryIO, end: int, values: tuple[int, ...], name: str) -> _Directory:
    _, disk, first_disk, on_disk, entries, size_bytes, start, _ = values
    if _FULL_16 in (disk, entries) or _FULL_32 in (size_bytes, start):
        before = end - _LOCATOR_64_BYTES - _END_64.size
        file.seek(max(0, before))
        record = file.read(_END_64.size)
        if before >= 0 and record.startswith(b"PK\x06\x06"):
            end = before
            _, _, _, _, disk, first_disk, on_disk, entries, size_bytes, start = _END_64.unpack(
                record
            )
    if disk or first_disk or on_disk != entries:
        raise DataError(f"{name} is one part of a divided archive.", "put the parts together")
    shift = end - size_bytes - start
    if shift < 0:
        raise _damaged(name, "its directory would begin before it does")
    return _Directory(end - size_bytes, size_bytes, entries, shift)


def _member(values: tuple[int, ...], name: bytes, extra: bytes) -> Member:
    _, made_by, _, flags, method, time, date, check, stored, size, *_, outer, start = values
    size, stored, start = _large(extra, [size, stored, start])
    host = made_by >> 8
    text = _text(name.partition(b"\0")[0], flags)
    if host in _DOS_HOSTS:
        text = text.replace("\\", "/")  # as archivers of Windows write them
    known = method if method in (Method.STORED, Method.DEFLATED) else Method.STORED
    extent = Extent(Method(known), start, stored, size, check)
    why = _unreadable(extent, flags, method, outer >> 16 if host == _UNIX else 0)
    if len(name) > MOST_NAME_BYTES:
        why = f"has a name of {len(name):,} bytes"
    return Member(text, extent, f"{check:08x}-{size:x}-{date:x}-{time:x}", why)


def _unreadable(extent: Extent, flags: int, method: int, mode: int) -> str:
    """Return why a member cannot be read, as the end of a sentence; "" if it can be tried."""
    if stat.S_ISLNK(mode):
        return "is a link, and links in archives are not followed"
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "is neither a file nor a folder"
    if flags & _ENCRYPTED:
        return "is encrypted; make the archive again without a password"
    if method != extent.method:
        return f"is compressed in an unusual way (method {method}); {_HOW_METHODS}"
    if extent.method is Method.STORED:
        is_whole = extent.stored_bytes == extent.size_bytes
    else:  # deflating makes little larger, if anything
        is_whole = extent.stored_bytes <= 2 * extent.size_bytes + MOST_NAME_BYTES
    return "" if is_whole else "does not have the size that the archive says"


def _text(name: bytes, flags: int) -> str:
    """Return a name: many archivers write UTF-8 without saying so, else it is code page 437."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        if flags & _IN_UTF_8:
            return name.decode(errors="surrogateescape")
        return name.decode("cp437")


def _large(extra: bytes, numbers: list[int]) -> list[int]:
    """Return the numbers, those that take more than 32 bits from the extra field."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind != _EXTRA_64:
            continue
        for place, number in enumerate(numbers):
            if number == _FULL_32 and len(field) >= 8:
                numbers[place], field = struct.unpack_from("<Q", field)[0], field[8:]
    return numbers


def _moved(member: Member, shift: int) -> Member:
    extent = member.extent
    moved = Extent(
        extent.method, extent.start + shift, extent.stored_bytes, extent.size_bytes, extent.check
    )
    return Member(member.name, moved, member.tag, member.unreadable)
