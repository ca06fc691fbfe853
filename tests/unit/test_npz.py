"""Archives of arrays, hostile ones among them: none makes its reader allocate what it claims."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from automl.errors import DataError
from automl.machine.memory import usable_bytes
from automl.tracks.image.npz import MOST_MEMBERS, read_npz

X = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
Y = np.array(["a", "b", "a", "b"])
ENOUGH = 2**24
HUGE = 10**12


def member(array: np.ndarray, shape: tuple[int, ...] | None = None, version: int = 1) -> bytes:
    """Return an array's file; its header may tell another shape."""
    buffer = io.BytesIO()
    header = npy.header_data_from_array_1_0(array)
    header["shape"] = array.shape if shape is None else shape
    write = npy.write_array_header_1_0 if version == 1 else npy.write_array_header_2_0
    write(buffer, header)
    return buffer.getvalue() + array.tobytes()


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name.replace("__", "/") + ".npy", data)
    return buffer.getvalue()


def claiming(data: bytes, name: bytes, size_bytes: int) -> bytes:
    """Return an archive whose directory says that a member expands to so many bytes."""
    found = bytearray(data)
    place = data.rindex(name)  # the directory comes last
    struct.pack_into("<I", found, place - 46 + 24, size_bytes)
    return bytes(found)


@contextmanager
def little_memory(most: int = 2**22) -> Iterator[None]:
    """Fail if the block allocates much at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("x", [X, np.asfortranarray(X), X[:0], X[:, ::2]])
def test_what_numpy_writes_is_read(save: Callable[..., None], x: np.ndarray) -> None:
    buffer = io.BytesIO()
    save(buffer, x=x, y=Y, more=np.arange(5))

    read_x, read_y = read_npz(buffer.getvalue(), "rows", ENOUGH)

    np.testing.assert_array_equal(read_x, x)
    np.testing.assert_array_equal(read_y, Y)


@pytest.mark.parametrize("y", [Y, np.arange(4), np.array([b"a"] * 4), np.arange(4, dtype=">i2")])
@pytest.mark.parametrize("version", [1, 2])
def test_labels_of_every_type_are_read(y: np.ndarray, version: int) -> None:
    data = archive(x=member(X), y=member(y, version=version))

    np.testing.assert_array_equal(read_npz(data, "rows", ENOUGH)[1], y)


def refused(data: bytes, why: str, most_bytes: int = ENOUGH) -> None:
    with little_memory(), pytest.raises(DataError, match=why):
        read_npz(data, "rows", most_bytes)


def test_an_archive_that_expands_beyond_the_bound_is_refused() -> None:
    bomb = np.zeros((50_000, 32, 32), np.uint8)
    data = archive(x=member(bomb), y=member(np.zeros(50_000, np.uint8)))

    assert len(data) < 100_000
    refused(data, "rows takes 66,600,000 bytes, and this process may use 16,777,216")


@pytest.mark.parametrize(
    "shape", [(HUGE, 3, 3), (HUGE,), (0, HUGE), (4, 3, 4), (), (4, 3, -3), (2**63, 2**63, 2**63)]
)
def test_a_header_that_contradicts_the_directory_is_refused(shape: tuple[int, ...]) -> None:
    refused(archive(x=member(X, shape), y=member(Y)), "x of rows does not have the size")


def test_a_directory_that_agrees_with_a_huge_header_is_refused_by_the_bound() -> None:
    x = member(X, (10**8, 3, 3))
    size_bytes = len(x) - X.nbytes + 9 * 10**8
    refused(claiming(archive(x=x, y=member(Y)), b"x.npy", size_bytes), "takes 30,900,0")


def test_rows_without_pixels_count_too() -> None:
    refused(archive(x=member(X[:, :0], (HUGE, 0, 3)), y=member(Y)), "takes 300,000,000,")


@pytest.mark.parametrize("grows", [True, False])
def test_a_member_that_has_not_the_size_of_the_directory_is_refused(*, grows: bool) -> None:
    rows = 6 if grows else 2
    x = member(np.zeros((rows, 3, 3), np.uint8), X.shape)
    size_bytes = len(x) + (4 - rows) * 9
    refused(claiming(archive(x=x, y=member(Y)), b"x.npy", size_bytes), "no whole|breaks off")


def test_a_flipped_bit_is_noticed() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, x=X, y=Y)
    data = bytearray(buffer.getvalue())
    data[data.index(X.tobytes()) + 5] ^= 1

    refused(bytes(data), "no whole .npz file")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no whole"),
        (b"PK\x05\x06" + bytes(18), "no array 'x'"),
        (archive(x=member(X)), "no array 'y'"),
        (archive(a__x=member(X), a__y=member(Y)), "no array 'x'"),
        (archive(x=b"", y=member(Y)), "x of rows has no header"),
        (archive(x=b"\x93NUMPY\x01\x00\xff\xff" + bytes(10), y=member(Y)), "no header"),
        (archive(x=b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(9**7), y=member(Y)), "no header"),
        (archive(x=b"\x93NUMPY\x01\x00\x08\x00" + b"((((((((", y=member(Y)), "no header"),
        (archive(x=b"\x93NUMPY\x09\x00\x08\x00" + bytes(9), y=member(Y)), "no header"),
        (archive(x=member(X), y=member(np.zeros(4, "i4,i4"))), "no numbers or texts"),
        (archive(x=member(X), y=member(np.array([None] * 4))), "no numbers or texts"),
    ],
)
def test_what_is_no_such_archive_is_refused(data: bytes, why: str) -> None:
    refused(data, why)


def test_two_members_of_one_name_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr("x.npy", member(X))
        with pytest.warns(UserWarning, match="Duplicate name"):
            out.writestr("x.npy", member(X))
        out.writestr("y.npy", member(Y))

    refused(buffer.getvalue(), "2 arrays 'x'")


def test_thousands_of_members_are_refused_before_they_are_listed() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for number in range(MOST_MEMBERS + 1):
            out.writestr(f"{number}", b"")

    refused(buffer.getvalue(), "more than 1,000 members")


def test_pickles_are_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return open, (str(ran), "w")

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, x=np.array([Attack()] * 4), y=Y)

    refused(buffer.getvalue(), "no numbers or texts|does not have the size")
    assert not ran.exists()


def test_what_is_refused_tells_nothing_of_the_content() -> None:
    data = archive(x=b"\x93NUMPY\x01\x00\x0e\x00{'hidden': 1}", hidden=member(Y), y=member(Y))

    with pytest.raises(DataError) as caught:
        read_npz(data, "rows", ENOUGH)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("file", ["pod/memory.max", "memory.max"])
def test_memory_is_bounded_by_the_control_groups(tmp_path: Path, file: str) -> None:
    (tmp_path / "pod").mkdir()
    unlimited = usable_bytes("0::/pod\n", tmp_path)
    (tmp_path / file).write_text("max\n")
    assert usable_bytes("0::/pod\n", tmp_path) > unlimited / 2

    (tmp_path / file).write_text("1000\n")
    assert usable_bytes("0::/pod\n", tmp_path) == 0
    assert unlimited > 2**20
