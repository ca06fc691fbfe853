"""Sources that are divided already: `train/<class>/…` beside `test/<class>/…`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from automl.data.findings import FindingKind
from automl.data.splits import Part
from automl.domain.specification import SmallClasses
from automl.errors import DataError
from automl.storage.file import FileObjectStore
from automl.tracks.image.audit import audited_rows
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.snapshot import ImageEnvelope
from benchmarks.shared_data import shared_dataset
from tests.local import here
from tests.packing import picture, tarred, zipped

PARTS = ("train", "val", "test")
TESTS = {Part.GATE.value, Part.REPORT.value}


def names(parts: Iterable[str] = PARTS, classes: str = "ab", each: int = 12) -> list[str]:
    return [f"{part}/{label}/{n}.png" for part in parts for label in classes for n in range(each)]


def put(folder: Path, paths: Iterable[str]) -> None:
    for number, path in enumerate(paths):
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture(number))


def request(folder: Path, key: str = "in") -> ImageRequest:
    return ImageRequest("divided", FileObjectStore(folder), key, image_size=8)


def prepared(asked: ImageRequest, home: FileObjectStore) -> ImageEnvelope:
    return prepare_images(asked, home, here())


def parts_of(home: FileObjectStore, envelope: ImageEnvelope) -> dict[str, str]:
    rows = audited_rows(home, envelope.dataset, envelope.id, ())
    return dict(zip(rows.paths, rows.parts.tolist(), strict=True))


@pytest.fixture
def home(tmp_path: Path) -> FileObjectStore:
    return FileObjectStore(tmp_path / "home")


def test_the_folder_of_test_rows_is_the_test_set(tmp_path: Path, home: FileObjectStore) -> None:
    put(tmp_path / "in", names())

    envelope = prepared(request(tmp_path), home)

    parts = parts_of(home, envelope)
    assert len(parts) == 72
    assert {path for path, part in parts.items() if part in TESTS} == set(names(["test"]))
    assert envelope.classes == ("a", "b")
    assert envelope.test_source == str(tmp_path / "in" / "test")
    (finding,) = [f for f in envelope.findings if f.kind is FindingKind.SPLIT_FOLDERS]
    assert finding.message.startswith("test has the sealed test rows, as data.test_source would")
    assert finding.examples == ("test", "train", "val")


def test_it_is_the_same_as_to_name_both_folders(tmp_path: Path, home: FileObjectStore) -> None:
    put(tmp_path / "in", names(["train", "test"]))
    store = FileObjectStore(tmp_path)
    named = replace(request(tmp_path, "in/train"), test=(store, "in/test"), test_fraction=0.0)

    assert prepared(request(tmp_path), home).id == prepared(named, home).id


def test_it_is_found_again_without_reading_anything(tmp_path: Path, home: FileObjectStore) -> None:
    put(tmp_path / "in", names())
    first = prepared(request(tmp_path), home)

    again = prepared(replace(request(tmp_path), thresholds=first.thresholds), home)

    assert (again.id, again.reused) == (first.id, True)


@pytest.mark.parametrize(("name", "pack"), [("x.zip", zipped), ("x.tar", tarred)])
@pytest.mark.parametrize("wrapper", ["", "set-main/images/"])
def test_archives_may_be_divided_too(
    tmp_path: Path, home: FileObjectStore, name: str, pack: object, wrapper: str
) -> None:
    files = {f"{wrapper}{path}": picture(n) for n, path in enumerate(names(["Train", "TEST"]))}
    assert callable(pack)
    (tmp_path / name).write_bytes(pack(files))

    envelope = prepared(request(tmp_path, name), home)

    parts = parts_of(home, envelope)
    tests = {path for path, part in parts.items() if part in TESTS}
    assert tests == {f"{name}/{wrapper}{path}" for path in names(["TEST"])}
    assert len(parts) == 48
    assert envelope.test_source == f"{tmp_path / name}/{wrapper}TEST"


def test_small_classes_are_those_of_the_training_rows(
    tmp_path: Path, home: FileObjectStore
) -> None:
    put(tmp_path / "in", [*names(["train", "test"]), "train/c/0.png", "test/c/1.png"])
    asked = replace(request(tmp_path), small_classes=SmallClasses.DROP)

    envelope = prepared(asked, home)

    assert envelope.classes == ("a", "b")
    assert {row.path for row in envelope.quarantined} == {"train/c/0.png", "test/c/1.png"}


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (names(["train", "val"]), "it is open which of them has the test rows"),
        (names(["train", "test", "testing"]), "it is open which of them has the test rows"),
        (names(["train", "Training", "test"]), "it is open which of them has the test rows"),
        ([*names(["train"]), *names(["test"], "abc")], r"test has class folders .* \(c\)"),
        ([*names(["train"]), "test/0.png"], "test has no class folders"),
        (names(["wrapped/train", "wrapped/valid"]), "it is open"),
    ],
)
def test_what_may_be_meant_in_two_ways_is_refused_with_the_remedy(
    tmp_path: Path, home: FileObjectStore, paths: list[str], why: str
) -> None:
    put(tmp_path / "in", paths)

    with pytest.raises(DataError, match=f"are parts of a split .*{why}") as caught:
        prepared(request(tmp_path), home)

    assert "as data.source, and the folder of test rows as data.test_source" in caught.value.hint


def test_a_test_set_is_not_named_twice(tmp_path: Path, home: FileObjectStore) -> None:
    put(tmp_path / "in", names())
    put(tmp_path / "other", [f"{label}/{n}.png" for label in "ab" for n in range(50, 60)])
    asked = replace(request(tmp_path), test=(FileObjectStore(tmp_path), "other"), test_fraction=0.0)

    with pytest.raises(DataError, match=r"not classes, and data\.test_source names the test rows"):
        prepared(asked, home)


def test_parts_of_a_split_without_classes_cannot_be_learnt_from(
    tmp_path: Path, home: FileObjectStore
) -> None:
    put(tmp_path / "in", ["train/0.png", "test/1.png"])

    with pytest.raises(DataError, match="without class folders"):
        prepared(request(tmp_path), home)


@pytest.mark.needs_shared("cifar10_small")
def test_a_divided_archive_that_people_share_is_used_as_it_is(
    tmp_path: Path, home: FileObjectStore
) -> None:
    folder = shared_dataset("cifar10_small")

    envelope = prepared(request(folder, "cifar10_small.zip"), home)

    held_out = envelope.counts[Part.GATE] + envelope.counts[Part.REPORT]
    assert held_out == 2000
    assert sum(envelope.counts.values()) + len(envelope.quarantined) == 12_000
    assert len(envelope.classes) == 10
