"""Manifests whose files lie in many places: each is judged, and nothing else is listed."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from automl.domain.sources import Sources
from automl.errors import ConfigError, DataError, NotFoundError
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectEntry
from automl.storage.open import open_store
from automl.storage.sources import SourceFolder, open_source
from automl.tracks.image import manifests
from automl.tracks.image.decode import encode_png
from automl.tracks.image.joined import JoinedFiles
from automl.tracks.image.listings import Listings
from automl.tracks.image.sources import Listing, SourceLocation, list_source
from tests.local import problems_of


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    return encode_png(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))


def put(folder: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture(number))


def write_manifest(path: Path, paths: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["path,label", *(f"{each},a" for each in paths)]))
    return path


def located(source: object, sources: Sources) -> SourceLocation:
    store, key = open_source(str(source), sources)
    return SourceLocation(store, key, locate=partial(open_source, sources=sources))


@pytest.fixture
def allowed(tmp_path: Path) -> Sources:
    """The folders `data` and `more` may be read."""
    put(tmp_path, "data/in/0.png", "data/in/b/1.png", "more/2.png", "secret/3.png", "secret/4.png")
    folders = (str(tmp_path / "data"), str(tmp_path / "more"))
    return Sources(str(tmp_path / "home"), folders, is_closed=True)


def test_paths_may_be_relative_absolute_and_addresses(tmp_path: Path, allowed: Sources) -> None:
    paths = ["0.png", "./b//1.png", f"{tmp_path}/more/2.png", f"file://{tmp_path}/data/in/0.png"]
    table = write_manifest(tmp_path / "data/in/train.csv", paths)

    listing = list_source(located(table, allowed))

    assert [row.path for row in listing.rows] == paths
    assert problems_of(listing) == [""] * 4
    assert isinstance(listing.store, JoinedFiles)
    contents = [listing.store.get(row.key).data for row in listing.rows]
    assert contents == [picture(number) for number in (0, 1, 2, 0)]
    assert not Listings.of(listing).findings


def test_relative_paths_alone_need_no_joined_store(tmp_path: Path, allowed: Sources) -> None:
    table = write_manifest(tmp_path / "data/in/train.csv", ["0.png", "b/1.png"])

    listing = list_source(located(table, allowed))

    assert isinstance(listing.store, SourceFolder)
    assert [row.key for row in listing.rows] == ["0.png", "b/1.png"]


def test_absolute_paths_outside_are_refused_all_at_once(tmp_path: Path, allowed: Sources) -> None:
    (tmp_path / "more/link.png").symlink_to(tmp_path / "secret/3.png")
    (tmp_path / "more/folder").symlink_to(tmp_path / "secret")
    (tmp_path / "data/in/folder").symlink_to(tmp_path / "secret")
    bad = [
        tmp_path / "secret/3.png", tmp_path / "secret/gone.png", "/etc/passwd", "/x.png",
        tmp_path / "more/link.png", tmp_path / "more/folder/4.png", "folder/4.png",
        tmp_path / "home/models/1.png", "s3://bucket/x.png", "s3://eve@bucket/x.png",
    ]  # fmt: skip
    table = write_manifest(tmp_path / "data/in/train.csv", ["0.png", *bad])

    with pytest.raises(DataError, match=r"10 files or folders of .* may not be read") as caught:
        list_source(located(table, allowed))

    told = {problem.path: problem.message for problem in caught.value.problems}
    outside = "it is, or leads, outside the places that studies may read"
    assert told.pop(f"{tmp_path}/home/models/1.png").startswith("it is, or leads, in AUTOML_HOME")
    assert told.pop("s3://eve@bucket/x.png") == "The s3:// address is not plain"
    assert set(told) == {*map(str, bad[:6]), "folder", "s3://bucket/x.png"}
    assert set(told.values()) == {outside}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{}/data/../secret/3.png", "the path has a segment '..' or a zero byte"),
        ("file://{}/data/%2E%2E/secret/3.png", "the path has a segment '..' or a zero byte"),
        ("../../secret/3.png", "the path leaves the folder of images"),
        ("file://host{}/data/in/0.png", "the file:// address is no file of this machine"),
        ("file://{}/data/in/0.png?x", "the file:// address is no file of this machine"),
        ("file://[", "the file:// address cannot be read"),
        ("https://host/x.png", "files of https:// cannot be read"),
        ("s3://bucket/a/../x.png", "the path has a segment '..' or a zero byte"),
        ("s3://bucket/a//x.png", "the s3:// address is not plain"),
        ("s3:///x.png", "the s3:// address is not plain"),
        ("/", "the path names no file"),
        (".", "the path names no file"),
        ("{}/data/in", "there is no such file"),
        ("{}/data/in/gone.png", "there is no such file"),
        ("{}/data/gone/0.png", "there is no such file"),
        ("{}/data/in/0.png/1.png", "there is no such file"),
    ],
)
def test_a_path_that_names_no_file_is_a_row_with_its_reason(
    tmp_path: Path, allowed: Sources, path: str, reason: str
) -> None:
    table = write_manifest(tmp_path / "data/in/train.csv", ["0.png", path.format(tmp_path)])

    assert [row.problem for row in list_source(located(table, allowed)).rows] == ["", reason]


def test_one_file_can_be_all_that_is_allowed(tmp_path: Path, allowed: Sources) -> None:
    table = write_manifest(tmp_path / "data/train.csv", [tmp_path / "secret/3.png"])
    one = Sources(allowed.home, (*allowed.prefixes, f"{tmp_path}/secret/3.png"), is_closed=True)

    listing = list_source(located(table, one))

    assert problems_of(listing) == [""]
    assert not Listings.of(listing).findings
    table = write_manifest(tmp_path / "data/train.csv", [tmp_path / "secret" / n for n in "34"])
    with pytest.raises(DataError, match=r"secret/4: it is, or leads, outside"):
        list_source(located(table, one))


def test_files_beside_the_home_may_be_named(tmp_path: Path) -> None:
    put(tmp_path, "0.png", "home/1.png")
    sources = Sources(str(tmp_path / "home"))
    table = write_manifest(tmp_path / "data/train.csv", [tmp_path / "0.png"])
    assert problems_of(list_source(located(table, sources))) == [""]

    table = write_manifest(tmp_path / "data/train.csv", [tmp_path / "home/1.png"])
    with pytest.raises(DataError, match=r"home/1\.png: it is, or leads, in AUTOML_HOME"):
        list_source(located(table, sources))


def test_a_place_that_is_replaced_by_a_link_is_refused_on_workers_too(
    tmp_path: Path, allowed: Sources
) -> None:
    """The places that may be read travel with each store of the rows."""
    table = write_manifest(tmp_path / "data/in/train.csv", ["0.png", f"{tmp_path}/more/2.png"])
    listing = list_source(located(table, allowed))
    (tmp_path / "more/2.png").unlink()
    (tmp_path / "more/2.png").symlink_to(tmp_path / "secret/3.png")

    with pytest.raises(ConfigError, match="outside the places"):
        problems_of(pickle.loads(pickle.dumps(listing)))  # noqa: S301 - its own


class Recording(MemoryObjectStore):
    """A store that notes what is listed."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[str] = []

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        self.listed.append(prefix)
        yield from super().list(prefix, start_after)


def _rows(store: Recording, paths: Sequence[str]) -> Listing:
    for path in paths:
        store.put(f"images/{path}", picture(1))
    store.put("train.csv", "\n".join(["path,label", *(f"{p},a" for p in paths)]).encode())
    store.listed.clear()
    return list_source(SourceLocation(store, "train.csv", store, "images"))


def test_only_the_folders_of_a_manifests_paths_are_listed() -> None:
    store = Recording()
    for other in ("images/huge/0.png", "elsewhere/1.png", "images/a-b/2.png", "images/a/b/3.png"):
        store.put(other, b"")

    listing = _rows(store, ["a/1.png", "a/2.png", "b/c/3.png"])

    assert [prefix for prefix in store.listed if prefix.endswith("/")] == [
        "images/a/", "images/b/c/",
    ]  # fmt: skip
    assert not any(row.problem for row in listing.rows)
    (finding,) = Listings.of(listing).findings
    assert (finding.count, finding.examples) == (1, ("images/a/b/3.png",))


def test_very_many_folders_are_listed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MOST_FOLDERS", 3)
    store = Recording()

    listing = _rows(store, [*(f"a/{number}/x.png" for number in range(50)), "b/y.png"])

    assert store.listed[-2:] == ["images/a/", "images/b/"]
    assert not any(row.problem for row in listing.rows)


def test_keys_of_joined_stores_are_found_by_their_number() -> None:
    stores = tuple(MemoryObjectStore() for _ in range(12))
    for number, store in enumerate(stores):
        store.put("a/x", str(number).encode())
    joined = JoinedFiles(stores)

    keys = [entry.key for entry in joined.list("")]
    assert keys == sorted(JoinedFiles.key(number, "a/x") for number in range(12))
    assert [joined.get(key).data for key in keys] == [key.split("/")[0].encode() for key in keys]
    assert [entry.key for entry in joined.list("1")] == ["1/a/x", "10/a/x", "11/a/x"]
    assert [entry.key for entry in joined.list("11/a", "10/z")] == ["11/a/x"]
    for key in ("12/a/x", "a/x", "-1/a/x", "0/gone"):
        with pytest.raises(NotFoundError):
            joined.get(key)


def test_a_manifest_may_name_files_of_buckets_and_of_disks(
    s3_store_uri: str, tmp_path: Path
) -> None:
    bucket = open_store(s3_store_uri)
    for key in ("a/0.png", "a/1.png", "b/2.png", "ab/3.png"):
        bucket.put(key, picture(1))
    put(tmp_path, "data/0.png")
    rows = ["0.png", f"{s3_store_uri}/a/0.png", f"{s3_store_uri}/b/2.png"]
    table = write_manifest(tmp_path / "data/train.csv", rows)
    prefixes = (f"{tmp_path}/data", f"{s3_store_uri}/a", f"{s3_store_uri}/b")
    sources = Sources(str(tmp_path / "home"), prefixes, is_closed=True)

    listing = list_source(located(table, sources))
    assert problems_of(listing) == [""] * 3
    assert len(listing.store.uri.split(", ")) == 2
    (finding,) = Listings.of(listing).findings
    assert finding.examples == (f"{s3_store_uri}/a/1.png",)

    bucket.put("a/train.csv", f"path,label\n1.png,a\n{tmp_path}/data/0.png,a".encode())
    assert problems_of(list_source(located(f"{s3_store_uri}/a/train.csv", sources))) == ["", ""]

    write_manifest(table, [*rows, f"{s3_store_uri}/ab/3.png"])
    with pytest.raises(DataError, match=r"ab/3\.png: it is, or leads, outside the places"):
        list_source(located(table, sources))
