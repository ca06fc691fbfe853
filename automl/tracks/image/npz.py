"""Arrays of an `.npz` file: judged by their headers, and only then expanded.

An `.npz` file is a zip archive of `.npy` files. A few bytes of it may claim to be, and may expand
to, more than any machine has: nothing is allocated by what a header says until the header agrees
with the archive's directory and both with the memory that may be used.
"""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from automl.errors import DataError

MOST_MEMBERS = 1000
ROW_BYTES = 300  # what a row takes in columns and while it is planned
TEXT_FACTOR = 8  # labels are decoded, at four bytes a letter, and become texts of Python
_ENTRY = b"PK\x01\x02"  # begins each entry of a zip archive's directory
_HEADER_BYTES = 2**16  # numpy's own headers have less than 200 bytes
_CHUNK_BYTES = 2**20
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_BAD_HEADER = (
    ValueError, TypeError, SyntaxError, RecursionError, MemoryError, EOFError, OverflowError,
    tokenize.TokenError,
)  # fmt: skip
_BAD_ARCHIVE = (
    zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError,
    OverflowError,
)  # fmt: skip
_AGAIN = "save it again with numpy.savez_compressed(file, x=images, y=labels)"


@dataclass(frozen=True, slots=True)
class _Header:
    """Header of an array.

    Attributes:
        shape: of the array.
        is_fortran: whether its first index varies fastest.
        dtype: of its values.
        start: bytes before the values.
    """

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[np.generic]
    start: int

    @property
    def size_bytes(self) -> int:
        """Size of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(
    data: bytes, name: str, most_bytes: int
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Return the arrays `x` and `y` of an archive; its other members are not looked at.

    Args:
        data: the archive.
        name: what messages call it.
        most_bytes: that its arrays and the lines of their rows may take together.

    Raises:
        DataError: it is no such archive, its headers contradict it, or it is too large.
    """
    if data.count(_ENTRY) > MOST_MEMBERS:
        raise DataError(f"{name} has more than {MOST_MEMBERS:,} members.", _AGAIN)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [_member(archive, name, key) for key in ("x", "y")]
            headers = [_header(archive, name, member) for member in members]
            rows = max((header.shape[0] for header in headers if header.shape), default=0)
            sizes = [header.size_bytes for header in headers]
            need = sizes[0] + TEXT_FACTOR * sizes[1] + ROW_BYTES * rows
            if need > most_bytes:
                raise DataError(
                    f"{name} takes {need:,} bytes, and this process may use {most_bytes:,} for it.",
                    "divide it, use a folder of files, or prepare where there is more memory",
                )
            x, y = (_values(archive, name, *each) for each in zip(members, headers, strict=True))
    except _BAD_ARCHIVE as error:
        raise DataError(f"{name} is no whole .npz file.", _AGAIN) from error
    return x, y


def _member(archive: zipfile.ZipFile, name: str, key: str) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == f"{key}.npy"]
    if len(found) != 1:
        how_many = "no array" if not found else f"{len(found)} arrays"
        raise DataError(f"{name} has {how_many} {key!r}.", _AGAIN)
    info = found[0]
    if info.flag_bits & 1 or info.compress_type not in _METHODS:
        raise DataError(f"{key} of {name} is encrypted or compressed in an unusual way.", _AGAIN)
    return info


def _header(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> _Header:
    """Return the header of a member, which agrees with the archive's directory.

    Raises:
        DataError: it does not, or its values are Python objects or records.
    """
    key = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
        head = io.BytesIO(file.read(_HEADER_BYTES))  # a header may claim to have gigabytes
    try:
        version = npy.read_magic(head)
        if version not in {(1, 0), (2, 0)}:
            raise ValueError(version)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read(head)
    except _BAD_HEADER as error:
        raise DataError(f"{key} of {name} has no header of an array.", _AGAIN) from error
    if dtype.hasobject or dtype.kind == "V":
        raise DataError(
            f"{key} of {name} has {dtype.kind!r} values, which are no numbers or texts.",
            "save it again, without Python objects",
        )
    header = _Header(shape, is_fortran, dtype, head.tell())
    if any(length < 0 for length in shape) or header.start + header.size_bytes != info.file_size:
        raise DataError(
            f"{key} of {name} does not have the size that its header gives: {list(shape)[:5]} of "
            f"{dtype.itemsize} bytes.",
            _AGAIN,
        )
    return header


def _values(
    archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo, header: _Header
) -> NDArray[np.generic]:
    """Return a member's values; the archive compares its checksum."""
    if header.size_bytes == 0:
        return np.zeros(header.shape, header.dtype)
    values = np.empty(header.size_bytes, np.uint8)
    with archive.open(info) as file:
        file.read(header.start)
        done = _fill(file, values.data)
    if done != header.size_bytes:
        raise DataError(f"{info.filename} of {name} breaks off.", _AGAIN)
    typed = values.view(header.dtype)
    if header.is_fortran:
        return typed.reshape(header.shape[::-1]).transpose()
    return typed.reshape(header.shape)


def _fill(file: IO[bytes], into: memoryview) -> int:
    """Read until the end or until `into` is full; return how many bytes came."""
    done = 0
    while chunk := file.read(min(_CHUNK_BYTES, len(into) - done)):
        into[done : done + len(chunk)] = chunk
        done += len(chunk)
    return done
