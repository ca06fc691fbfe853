"""Archives with odd members, and damaged ones: each is named with its reason."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile

import pytest

from automl.errors import DataError
from tests.packing import (
    CLASSES,
    TAR,
    ZIP,
    listed,
    picture,
    reasons,
    zipped,
)


def _marked(mode: int, name: str = "a/odd.png") -> bytes:
    buffer = io.BytesIO(zipped(CLASSES))
    with zipfile.ZipFile(buffer, "a") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = (mode | 0o644) << 16
        archive.writestr(info, b"../b/01.png")
    return buffer.getvalue()


def _patched(old: bytes, new: bytes, data: bytes | None = None) -> bytes:
    data = zipped(CLASSES) if data is None else data
    assert old in data
    return data.replace(old, new)


def _one(name: str, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO(zipped(CLASSES))
    with zipfile.ZipFile(buffer, "a", method) as archive:
        archive.writestr(name, picture(100))
    return buffer.getvalue()


def _entry(data: bytes, offset: int, value: bytes) -> bytes:
    """Return an archive with a part of its directory's last entry replaced."""
    at = data.rindex(b"PK\x01\x02") + offset
    return data[:at] + value + data[at + len(value) :]


def _twice() -> bytes:
    one = zipped({**CLASSES, "a/odd.png": picture(100), "a/odq.png": picture(101)})
    return one.replace(b"a/odq.png", b"a/odd.png")


def _corrupt() -> bytes:
    data = _one("a/odd.png", zipfile.ZIP_STORED)
    return data.replace(picture(100), picture(100)[:-1] + b"\0")


def _torn_deflate() -> bytes:
    good = _one("a/odd.png")
    start = good.index(b"a/odd.png") + len("a/odd.png")
    return good[:start] + b"\xff" * 8 + good[start + 8 :]


def _misplaced() -> bytes:
    return _entry(_one("a/odd.png"), 42, struct.pack("<L", 7))


ODD_ZIPS: dict[str, tuple[bytes, str, str]] = {
    "a link": (_marked(stat.S_IFLNK), "a/odd.png", "it is a link"),
    "a device": (_marked(stat.S_IFBLK), "a/odd.png", "it is neither a file nor a folder"),
    "encrypted": (_entry(_one("a/odd.png"), 8, b"\x01"), "a/odd.png", "it is encrypted"),
    "bzip2": (_one("a/odd.png", zipfile.ZIP_BZIP2), "a/odd.png", "unusual way (method 12)"),
    "there twice": (_twice(), "a/odd.png", "more than once"),
    "above": (_one("../odd.png"), "../odd.png", "its name leads out of the archive"),
    "absolute": (_one("/a/odd.png"), "/a/odd.png", "its name in the archive is absolute"),
    "a drive": (_one("C:/a/odd.png"), "C:/a/odd.png", "its name in the archive is absolute"),
    "corrupt": (_corrupt(), "a/odd.png", "its checksum is another"),
    "torn": (_torn_deflate(), "a/odd.png", "damaged in the archive"),
    "elsewhere": (_misplaced(), "a/odd.png", "not where the archive's directory says"),
    "a smaller size": (_entry(_one("a/odd.png"), 24, struct.pack("<L", 99)), "a/odd.png",
                       "expands to more than the 99 bytes"),
    "a larger size": (_entry(_one("a/odd.png"), 24, struct.pack("<L", 9999)), "a/odd.png",
                      "its checksum is another"),
    "too large": (_entry(_one("a/odd.png"), 24, struct.pack("<L", 2**31)), "a/odd.png",
                  "the file has 2,147,483,648 bytes, more than"),
}  # fmt: skip


def _tar_with(*odd: tarfile.TarInfo, data: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, each in CLASSES.items():
            info = tarfile.TarInfo(name)
            info.size = len(each)
            archive.addfile(info, io.BytesIO(each))
        for info in odd:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _of_kind(kind: bytes, name: str = "a/odd.png", **words: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, "b/01.png", words
    return info


ODD_TARS: dict[str, tuple[bytes, str, str]] = {
    "a symbolic link": (_tar_with(_of_kind(tarfile.SYMTYPE)), "a/odd.png", "it is a link"),
    "a hard link": (_tar_with(_of_kind(tarfile.LNKTYPE)), "a/odd.png", "it is a link"),
    "a pipe": (_tar_with(_of_kind(tarfile.FIFOTYPE)), "a/odd.png", "neither a file nor a folder"),
    "a device": (_tar_with(_of_kind(tarfile.CHRTYPE)), "a/odd.png", "neither a file nor a folder"),
    "of a new kind": (_tar_with(_of_kind(b"V")), "a/odd.png", "of an unusual kind (b'V')"),
    "sparse": (_tar_with(_of_kind(tarfile.REGTYPE, **{"GNU.sparse.major": "1"})), "a/odd.png",
               "a sparse file"),
    "there twice": (_tar_with(_of_kind(tarfile.REGTYPE), _of_kind(tarfile.REGTYPE),
                              data=picture(100)), "a/odd.png", "more than once"),
    "above": (_tar_with(_of_kind(tarfile.REGTYPE, "a/../../odd.png"), data=picture(100)),
              "a/../../odd.png", "leads out of the archive"),
    "absolute": (_tar_with(_of_kind(tarfile.REGTYPE, "/a/odd.png"), data=picture(100)),
                 "/a/odd.png", "is absolute"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "path", "reason"),
    [("x.zip", *odd) for odd in ODD_ZIPS.values()] + [("x.tar", *odd) for odd in ODD_TARS.values()],
    ids=[*(f"zip {name}" for name in ODD_ZIPS), *(f"tar {name}" for name in ODD_TARS)],
)
def test_an_odd_member_of_an_archive_is_named_with_its_reason(
    name: str, data: bytes, path: str, reason: str
) -> None:
    listing = listed(name, data)
    found = reasons(listing)

    assert list(found) == [f"{name}/{path}"]
    assert reason in found[f"{name}/{path}"]
    assert len(listing.rows) == len(CLASSES) + 1


def test_odd_members_that_are_no_images_are_counted() -> None:
    listing = listed("x.zip", _one("../notes.txt"))

    assert len(listing.rows) == len(CLASSES)
    (finding,) = listing.findings
    assert finding.examples == ("../notes.txt",)


def test_a_member_larger_than_any_image_is_not_expanded() -> None:
    data = zipped({**CLASSES, "a/bomb.png": bytes(30_000_000)})

    found = reasons(listed("x.zip", data), most_pixels=1000)

    assert list(found) == ["x.zip/a/bomb.png"]
    assert "30,000,000 bytes, more than" in found["x.zip/a/bomb.png"]


def _header(name: str, **values: int | bytes) -> bytes:
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "an empty zip": ("x.zip", b"", "no whole zip archive"),
    "no zip": ("x.zip", b"PK\x03\x04 or so", "no whole zip archive"),
    "half a zip": ("x.zip", ZIP[: len(ZIP) // 2], "does not end as one"),
    "a zip without its beginning": ("x.zip", ZIP[len(ZIP) // 2 :], "would begin before it does"),
    "a torn directory": ("x.zip", ZIP.replace(b"PK\x01\x02", b"PK\x01\x03", 1), "entry 1 of its"),
    "a wrong count": ("x.zip", ZIP[:-14] + b"\x02\0\x02\0" + ZIP[-10:], "entries, not 2"),
    "a part of a zip": ("x.zip", ZIP[:-18] + b"\1\0" + ZIP[-16:], "put the parts together"),
    "an entry that leads out": ("x.zip", _entry(ZIP, 20, struct.pack("<L", 2**31)), "leads out"),
    "an empty tar": ("x.tar", b"", "it breaks off"),
    "no tar": ("x.tar", b"x" * 4096, "byte 0 begins no member"),
    "half a tar": ("x.tar", TAR[: 512 * 7], "it breaks off"),
    "a tar cut within a member": ("x.tar", TAR[: 512 * 2 - 100], "breaks off within"),
    "two tars in one": ("x.tar", TAR + TAR, "something after its end"),
    "gzip": ("x.tar", b"\x1f\x8b" + bytes(1000), "compressed with gzip"),
    "less than nothing": ("x.tar", _header("a", size=-512) + bytes(1024), "less than no bytes"),
    "a huge header": ("x.tar", _header("a", type=b"L", size=2**40) + bytes(1024), "has 1,099,511"),
    "a header of nothing": ("x.tar", _header("a", type=b"x", size=512) + bytes(512), "cannot be"),
    "sparse": ("x.tar", _header("a", type=b"S") + bytes(1024), "without --sparse"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive_is_refused_with_its_reason(name: str, data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        listed(name, data)

    assert f"data/{name}" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.TAR.xz", "x.7z", "x.rar"])
def test_archives_that_are_read_from_their_start_alone_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"a \.zip or a plain \.tar, which are read in place"):
        listed(name, b"\x1f\x8b")
