"""Archives of images: read in place, whoever made them, and whatever they claim."""

from __future__ import annotations

import io
import pickle
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.data.files import FileEntry, SourceStore, StoredFile
from automl.data.findings import FindingKind
from automl.domain.sources import Sources
from automl.errors import ConfigError, DataError
from automl.storage.file import FileObjectStore
from automl.storage.memory import MemoryObjectStore
from automl.storage.open import open_store
from automl.storage.sources import SourceFolder, open_source, source_problems
from automl.tracks.image import archives
from automl.tracks.image.archives import Archive, ArchiveFiles
from automl.tracks.image.decode import MOST_PIXELS, encode_png
from automl.tracks.image.listings import Listings
from automl.tracks.image.passes import read_rows
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sources import Listing, SourceLocation, SourceRow, list_source
from tests.local import here, problems_of, reading

Files = dict[str, bytes]
Pack = Callable[[Files], bytes]


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    return encode_png(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))


CLASSES: Files = {f"{'ab'[n % 2]}/{n:02d}.png": picture(n) for n in range(20)}


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def stored(files: Files) -> bytes:
    return zipped(files, zipfile.ZIP_STORED)


def with_64_bits(files: Files) -> bytes:
    """Return an archive with a comment, and sizes that its local headers tell in 64 bits."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
        archive.comment = b"PK\x05\x06 is how an end begins"
    return buffer.getvalue()


def behind_a_program(files: Files) -> bytes:
    return b"#!/bin/sh\n" * 100 + zipped(files)


def tarred(files: Files, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tarred_gnu(files: Files) -> bytes:
    return tarred(files, tarfile.GNU_FORMAT)


def tarred_ustar(files: Files) -> bytes:
    return tarred(files, tarfile.USTAR_FORMAT)


PACKS: dict[str, tuple[str, Pack]] = {
    "deflated": ("x.zip", zipped),
    "stored": ("x.ZIP", stored),
    "64 bits": ("x.zip", with_64_bits),
    "behind a program": ("x.zip", behind_a_program),
    "pax": ("x.tar", tarred),
    "gnu": ("x.tar", tarred_gnu),
    "ustar": ("x.tar", tarred_ustar),
}
BOTH = pytest.mark.parametrize(("name", "pack"), [("x.zip", zipped), ("x.tar", tarred)])


def holding(key: str, data: bytes) -> MemoryObjectStore:
    store = MemoryObjectStore()
    store.put(key, data)
    return store


def listed(name: str, data: bytes, inside: str = "") -> Listing:
    store = holding(f"data/{name}", data)
    return list_source(SourceLocation(store, f"data/{name}/{inside}".rstrip("/")))


def content(listing: Listing, row: SourceRow) -> bytes:
    return listing.store.get(row.key).data


def reasons(listing: Listing, most_pixels: int = MOST_PIXELS) -> dict[str, str]:
    """Return why rows cannot be used, by path; the rows are read."""
    found = zip(listing.rows, problems_of(listing, most_pixels), strict=True)
    return {row.path: problem for row, problem in found if problem}


@pytest.mark.parametrize(("name", "pack"), PACKS.values(), ids=PACKS)
def test_class_folders_are_read_in_place(name: str, pack: Pack) -> None:
    listing = listed(name, pack(CLASSES))

    assert {row.path: (row.label, content(listing, row)) for row in listing.rows} == {
        f"{name}/{path}": (path[0], data) for path, data in CLASSES.items()
    }
    assert {row.size_bytes for row in listing.rows} == {len(data) for data in CLASSES.values()}
    assert len({row.etag for row in listing.rows}) == len(CLASSES)
    assert not reasons(listing)


@BOTH
def test_names_of_every_kind_are_found(name: str, pack: Pack) -> None:
    names = ["ünï/日本 + a@1.png", f"long/{'n' * 180}.png", "./dots/./a.png", "twice//b.png"]
    listing = listed(name, pack({each: picture(n) for n, each in enumerate(names)}))

    assert {row.path.removeprefix(f"{name}/") for row in listing.rows} == {
        "ünï/日本 + a@1.png", names[1], "dots/a.png", "twice/b.png",
    }  # fmt: skip
    assert not reasons(listing)


def test_names_of_windows_and_of_old_archivers_are_understood() -> None:
    listing = listed("x.zip", zipped({"caf\u00e9/0.png": picture(0), "d\\1.png": picture(1)}))
    assert {row.label for row in listing.rows} == {"café"}  # made here: a backslash is a letter

    data = zipped({"d/1.png": picture(1), "e\\2.png": picture(2)})
    made_by = data.replace(b"PK\x01\x02\x14\x03", b"PK\x01\x02\x14\x00")
    assert {row.label for row in listed("x.zip", made_by).rows} == {"d", "e"}

    old = zipped({"cafe/0.png": picture(0), "d/1.png": picture(1)}).replace(b"cafe", b"caf\x82")
    assert {row.label for row in listed("x.zip", old).rows} == {"café", "d"}


@BOTH
def test_a_wrapper_split_and_ignored_files_are_as_in_folders(name: str, pack: Pack) -> None:
    wrapped = {f"set-main/{path}": data for path, data in CLASSES.items()}
    more = {
        "set-main/README.md": b"",
        "set-main/a/.DS_Store": b"",
        "__MACOSX/set-main/._x.png": b"",
    }
    listing = listed(name, pack({**wrapped, **more}))

    assert {row.label for row in listing.rows} == {"a", "b"}
    assert {finding.kind for finding in listing.findings} == {
        FindingKind.WRAPPER_FOLDER, FindingKind.IGNORED_FILES,
    }  # fmt: skip
    split = {f"set/{part}/{path}": d for part in ("train", "test") for path, d in CLASSES.items()}
    with pytest.raises(DataError, match=rf"data/{name}/set/train as data\.source"):
        listed(name, pack(split))
    training = listed(name, pack(split), "set/train")
    assert {row.path for row in training.rows} == {f"{name}/set/train/{path}" for path in CLASSES}


@BOTH
@pytest.mark.parametrize("wrapper", ["", "set/"])
def test_a_manifest_in_an_archive_tells_its_rows(name: str, pack: Pack, wrapper: str) -> None:
    files = {f"{wrapper}images/{path}": data for path, data in CLASSES.items()}
    lines = ["path,label", *(f"images/{path},{path[0].upper()}" for path in list(CLASSES)[:-1])]
    lines += ["/etc/passwd,A", "../x.png,A", "images/gone.png,A"]
    files[f"{wrapper}train.csv"] = "\n".join(lines).encode()
    listing = listed(name, pack(files))

    assert {row.label for row in listing.rows} == {"A", "B"}
    assert list(reasons(listing).values()) == [
        "the path leaves the folder of images"] * 2 + ["there is no such file"]  # fmt: skip
    assert [finding.count for finding in Listings.of(listing).findings] == [1]
    assert content(listing, listing.rows[0]) == CLASSES["a/00.png"]
    assert isinstance(listing.store, ArchiveFiles)
    files[f"{wrapper}test.csv"] = b"path,label\nimages/b/01.png,B"
    with pytest.raises(DataError, match=rf"2 manifests: {wrapper}test.csv, .*such as .*{name}/"):
        listed(name, pack(files))
    assert len(listed(name, pack(files), f"{wrapper}test.csv").rows) == 1


def test_tables_beside_images_are_no_manifest() -> None:
    listing = listed("x.zip", zipped({**CLASSES, "a/notes.csv": b"x"}))

    assert len(listing.rows) == len(CLASSES)


def test_a_manifest_may_name_images_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zipped({f"in/{path}": d for path, d in CLASSES.items()}))
    lines = ["path,label", *(f"{path},{path[0]}" for path in CLASSES)]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    store = FileObjectStore(tmp_path)

    listing = list_source(SourceLocation(store, "train.csv", store, "x.zip/in"))

    assert [row.path for row in listing.rows] == list(CLASSES)
    assert not reasons(listing)
    assert len(pickle.dumps(listing.store)) < 1000


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


@pytest.mark.parametrize(("data", "path", "reason"), ODD_ZIPS.values(), ids=ODD_ZIPS)
def test_an_odd_member_of_a_zip_archive_is_named_with_its_reason(
    data: bytes, path: str, reason: str
) -> None:
    listing = listed("x.zip", data)
    found = reasons(listing)

    assert list(found) == [f"x.zip/{path}"]
    assert reason in found[f"x.zip/{path}"]
    assert len(listing.rows) == len(CLASSES) + 1


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


@pytest.mark.parametrize(("data", "path", "reason"), ODD_TARS.values(), ids=ODD_TARS)
def test_an_odd_member_of_a_tar_archive_is_named_with_its_reason(
    data: bytes, path: str, reason: str
) -> None:
    listing = listed("x.tar", data)
    found = reasons(listing)

    assert list(found) == [f"x.tar/{path}"]
    assert reason in found[f"x.tar/{path}"]
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


TAR, ZIP = tarred(CLASSES), zipped(CLASSES)
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


@BOTH
def test_members_are_bounded(name: str, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack(CLASSES)
    monkeypatch.setattr(archives, "MOST_MEMBERS", len(CLASSES))
    assert len(listed(name, data).rows) == len(CLASSES)

    monkeypatch.setattr(archives, "MOST_MEMBERS", len(CLASSES) - 1)
    with pytest.raises(DataError, match=r"more members than 19, .* divide it"):
        listed(name, data)
    monkeypatch.undo()
    monkeypatch.setattr(archives, "usable_bytes", lambda: 10 * archives.MEMBER_BYTES)
    with pytest.raises(DataError, match="more members than 2"):
        listed(name, data)


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_a_folder_called_as_an_archive_is_a_folder(tmp_path: Path, name: str) -> None:
    for path, data in CLASSES.items():
        (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / path).write_bytes(data)
    store, key = open_source(str(tmp_path / name), Sources(str(tmp_path / "home")))

    assert len(list_source(SourceLocation(store, key)).rows) == len(CLASSES)


def test_places_in_archives_are_judged_as_the_archives_are(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.zip").write_bytes(ZIP)
    (tmp_path / "other.zip").write_bytes(ZIP)
    (tmp_path / "data" / "link.zip").symlink_to(tmp_path / "other.zip")
    sources = Sources(str(tmp_path / "home"), (str(tmp_path / "data"),), is_closed=True)

    inside, missing = tmp_path / "data/x.zip/a", tmp_path / "data/y.zip/a"
    store, key = open_source(str(inside), sources)
    assert (store.uri, key) == (str(tmp_path / "data"), "x.zip/a")
    assert not source_problems({"source": str(inside)}, sources)
    for uri in (tmp_path / "other.zip", tmp_path / "other.zip/a", tmp_path / "data/link.zip"):
        with pytest.raises(ConfigError, match="outside the places"):
            open_source(str(uri), sources)
        (problem,) = source_problems({"source": str(uri)}, sources)
        assert "outside the places" in problem.message
    with pytest.raises(DataError, match="does not exist"):
        open_source(str(missing), sources)
    (problem,) = source_problems({"source": str(missing)}, sources)
    assert "does not exist" in problem.message


def test_an_archive_that_is_replaced_by_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.zip").write_bytes(ZIP)
    (tmp_path / "other.zip").write_bytes(ZIP)
    sources = Sources(str(tmp_path / "home"), (str(tmp_path / "data"),), is_closed=True)
    store, key = open_source(str(tmp_path / "data" / "x.zip"), sources)
    listing = list_source(SourceLocation(store, key))
    (tmp_path / "data" / "x.zip").unlink()
    (tmp_path / "data" / "x.zip").symlink_to(tmp_path / "other.zip")

    with pytest.raises(ConfigError, match="outside the places"):
        read_rows(reading(listing, [0]))


@BOTH
def test_an_archive_that_changes_while_it_is_read_gives_no_wrong_rows(
    name: str, pack: Pack
) -> None:
    store = MemoryObjectStore()
    store.put(name, pack(CLASSES))
    listing = list_source(SourceLocation(store, name))
    swapped = dict(zip(CLASSES, reversed(CLASSES.values()), strict=True))
    store.put(name, pack({f"c{path[1:]}": data for path, data in swapped.items()}))

    assert len(reasons(listing)) == len(CLASSES)


@dataclass
class Counting:
    """A store that counts what is read of it."""

    store: SourceStore
    reads: list[int] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return self.store.uri

    def get(self, key: str) -> StoredFile:
        raise AssertionError(f"all of {key} is read")

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        data = self.store.get_range(key, start, size_bytes)
        self.reads.append(len(data))
        return data

    def list(self, prefix: str, start_after: str = "") -> Iterator[FileEntry]:
        return self.store.list(prefix, start_after)


def test_no_more_of_an_archive_is_read_than_its_directory_and_the_members() -> None:
    noise = np.random.default_rng(0).bytes(200_000)
    store = MemoryObjectStore()
    store.put("x.zip", zipped({f"{'ab'[n % 2]}/{n}.png": noise for n in range(50)}))
    counting = Counting(store)
    listing = list_source(SourceLocation(counting, "x.zip"))

    assert sum(counting.reads) < 100_000
    counting.reads.clear()
    assert content(listing, listing.rows[0]) == noise
    (read,) = counting.reads
    assert read < 201_000


@given(
    files=st.dictionaries(
        st.from_regex(r"[ab]/[0-9a-z]{1,8}\.png", fullmatch=True),
        st.binary(max_size=300),
        min_size=1,
    ),
    pack=st.sampled_from([zipped, stored, with_64_bits, tarred, tarred_gnu]),
    comment=st.binary(max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_members_are_what_was_packed(files: Files, pack: Pack, comment: bytes) -> None:
    name = "x.tar" if pack in {tarred, tarred_gnu} else "x.zip"
    data = pack(files)
    if pack is zipped and b"PK" not in comment:
        data = data[:-2] + struct.pack("<H", len(comment)) + comment
    archive = Archive.open(holding(name, data), name)

    assert {key: archive.get(key).data for key in archive.names} == files
    assert [entry.key for entry in archive.list("a/")] == sorted(k for k in files if k[0] == "a")
    again = {entry.key: archive.files.get(entry.key).data for entry in archive.files.list("")}
    assert sorted(again.values()) == sorted(files.values())


@given(
    pack=st.sampled_from([zipped, stored, tarred, tarred_gnu]),
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 400),
)
@settings(max_examples=150, deadline=None)
def test_nothing_that_is_damaged_fails_but_with_a_reason(
    pack: Pack, edits: list[tuple[int, int]], cut: int
) -> None:
    """Most edits are in the directory; a checksum of a zip archive holds for what is read."""
    files = {f"{'ab'[n % 2]}/{n}.png": bytes([n]) * (n * 40) for n in range(8)}
    data = bytearray(pack(files))
    for at, value in edits:
        data[-1 - at % len(data)] = value
    is_tar = pack in {tarred, tarred_gnu}
    name = "x.tar" if is_tar else "x.zip"
    store = holding(name, bytes(data[: len(data) - cut % 40]))
    known = {0, *map(zlib.crc32, files.values())}
    with suppress(DataError):
        archive = Archive.open(store, name)
        for key in archive.names:
            with suppress(DataError):
                assert zlib.crc32(archive.get(key).data) in known or is_tar


def test_archive_folder_and_tar_give_one_snapshot(tmp_path: Path) -> None:
    home = FileObjectStore(tmp_path / "home")
    store = SourceFolder(tmp_path, Sources(str(tmp_path / "home")))
    (tmp_path / "x.zip").write_bytes(ZIP)
    (tmp_path / "x.tar").write_bytes(TAR)
    for path, data in CLASSES.items():
        (tmp_path / "x" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / path).write_bytes(data)
    request = ImageRequest("pets", store, "x")

    made = [
        prepare_images(replace(request, source_key=key), home, here())
        for key in ("x", "x.zip", "x.tar")
    ]

    assert len({envelope.id for envelope in made}) == 1
    assert [envelope.reused for envelope in made] == [False, True, True]


def test_archives_in_buckets_are_read_in_parts(s3_store_uri: str) -> None:
    bucket = open_store(s3_store_uri)
    for name, data in (("x.zip", ZIP), ("x.tar", TAR)):
        bucket.put(f"sets/{name}", data)
        store, key = open_source(f"{s3_store_uri}/sets/{name}/", Sources("/home"))

        listing = list_source(SourceLocation(store, key))

        sent = pickle.loads(pickle.dumps(listing))  # noqa: S301 - its own
        assert problems_of(sent) == [""] * len(CLASSES)
