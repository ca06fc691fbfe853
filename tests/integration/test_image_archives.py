"""Archives of images: read in place, whoever made them, and whatever they claim."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Iterator
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
from automl.tracks.image.listings import Listings
from automl.tracks.image.passes import read_rows
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sources import SourceLocation, list_source
from tests.local import here, problems_of, reading
from tests.packing import (
    CLASSES,
    PACKS,
    TAR,
    ZIP,
    Files,
    Pack,
    content,
    holding,
    listed,
    picture,
    reasons,
    stored,
    tarred,
    tarred_gnu,
    with_64_bits,
    zipped,
)

BOTH = pytest.mark.parametrize(("name", "pack"), [("x.zip", zipped), ("x.tar", tarred)])


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
