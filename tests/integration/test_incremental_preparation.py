"""Preparations after the first: what has not changed is neither decoded nor stored again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from automl.data.splits import Part
from automl.errors import DataError, NotFoundError, StorageError
from automl.storage.file import FileObjectStore
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectEntry, StoredObject
from automl.tracks.image import passes
from automl.tracks.image.decode import decode_image, encode_png
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from tests.local import here

ROWS = 60


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    return encode_png(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))


def write(folder: Path, numbers: Iterator[int] | range, prefix: str = "") -> ImageRequest:
    """Write pictures into folders of two classes; return the request for all that are there."""
    for number in numbers:
        place = folder / "in" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{prefix}{number:03d}.png").write_bytes(picture(number))
    return ImageRequest("pictures", FileObjectStore(folder), "in", image_size=8)


def prepared(request: ImageRequest, home: MemoryObjectStore | FileObjectStore) -> ImageEnvelope:
    return prepare_images(request, home, here())


def tensors(home: MemoryObjectStore, envelope: ImageEnvelope) -> list[np.ndarray]:
    return list(ImageSnapshot.open(home, "pictures", envelope.id).tensors(*Part))


def images_in(home: MemoryObjectStore) -> set[str]:
    return {entry.key for entry in home.list("datasets/") if "/images-" in entry.key}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files that are decoded."""
    sizes: list[int] = []

    def decode(data: bytes, most_pixels: int) -> np.ndarray:
        sizes.append(len(data))
        return decode_image(data, most_pixels)

    monkeypatch.setattr(passes, "decode_image", decode)
    return sizes


def test_only_new_files_are_decoded_and_stored(tmp_path: Path, decoded: list[int]) -> None:
    home = MemoryObjectStore()
    first = prepared(write(tmp_path, range(ROWS)), home)
    before = images_in(home)
    decoded.clear()

    request = write(tmp_path, range(ROWS, ROWS + 6))
    grown = prepared(replace(request, thresholds=first.thresholds), home)

    assert len(decoded) == 6
    (new,) = images_in(home) - before
    assert {block.key: block.rows for block in grown.blocks}[new] == 6
    fresh = MemoryObjectStore()
    whole = prepared(replace(request, thresholds=first.thresholds), fresh)
    assert (whole.id, whole.mean, whole.std) == (grown.id, grown.mean, grown.std)
    for one, other in zip(tensors(home, grown), tensors(fresh, whole), strict=True):
        np.testing.assert_array_equal(one, other)
    held_out = (Part.GATE, Part.SELECTION)
    files = [
        [
            (row.path, row.digest, row.label, row.pixels.tolist())
            for row in snapshot.files(*held_out)
        ]
        for snapshot in (
            ImageSnapshot.open(home, "pictures", grown.id),
            ImageSnapshot.open(fresh, "pictures", whole.id),
        )
    ]
    assert files[0] == files[1]


def test_labels_of_sealed_rows_are_in_a_file_that_trainings_do_not_read(tmp_path: Path) -> None:
    home = MemoryObjectStore()
    envelope = prepared(write(tmp_path, range(ROWS)), home)
    assert envelope.sealed is not None
    home.delete(envelope.sealed.key)
    snapshot = ImageSnapshot.open(home, "pictures", envelope.id)

    images, labels = snapshot.tensors(Part.TRAIN, Part.SELECTION, Part.CALIBRATION)

    assert len(images) == len(labels) == ROWS - envelope.sealed.rows
    assert envelope.sealed.rows == envelope.counts[Part.GATE] + envelope.counts[Part.REPORT]
    with pytest.raises(NotFoundError):
        snapshot.tensors(Part.GATE)


def test_removed_files_cost_nothing(tmp_path: Path, decoded: list[int]) -> None:
    home = MemoryObjectStore()
    request = write(tmp_path, range(ROWS))
    first = prepared(request, home)
    before = images_in(home)
    decoded.clear()
    for number in range(0, ROWS, 10):
        (tmp_path / "in" / "a" / f"{number:03d}.png").unlink()

    less = prepared(replace(request, thresholds=first.thresholds), home)

    assert not decoded
    assert images_in(home) == before
    assert sum(less.counts.values()) == ROWS - 6
    assert len(tensors(home, less)[0]) == ROWS - 6


def test_touched_files_are_read_but_not_decoded(tmp_path: Path, decoded: list[int]) -> None:
    home = MemoryObjectStore()
    request = write(tmp_path, range(ROWS))
    first = prepared(request, home)
    before = images_in(home)
    decoded.clear()
    for path in (tmp_path / "in").rglob("*.png"):
        os.utime(path, (1, 1))

    again = prepared(request, home)

    assert again.reused
    assert again.id == first.id
    assert not decoded
    assert images_in(home) == before
    read = list(home.list("datasets/pictures/sources/rows-"))
    assert prepared(request, home) == again
    assert list(home.list("datasets/pictures/sources/rows-")) == read  # they are known now


def test_files_that_were_moved_or_copied_are_recognised(tmp_path: Path, decoded: list[int]) -> None:
    home = MemoryObjectStore()
    request = write(tmp_path, range(ROWS))
    prepared(request, home)
    decoded.clear()
    (tmp_path / "in" / "a").rename(tmp_path / "in" / "c")
    write(tmp_path, range(0, ROWS, 2), prefix="copy-")  # into the class a again

    found = prepared(request, home)

    assert found.classes == ("a", "b", "c")
    assert not decoded
    assert sum(found.counts.values()) == ROWS + ROWS // 2


def test_files_that_cannot_be_decoded_are_known_too(tmp_path: Path, decoded: list[int]) -> None:
    home = MemoryObjectStore()
    request = replace(write(tmp_path, range(ROWS)), max_bad_fraction=0.5)
    (tmp_path / "in" / "a" / "torn.png").write_bytes(picture(1)[:70])
    first = prepared(request, home)
    decoded.clear()

    write(tmp_path, range(ROWS, ROWS + 1))
    again = prepared(replace(request, thresholds=first.thresholds), home)

    assert len(decoded) == 1
    assert again.quarantined == first.quarantined
    assert [row.path for row in again.quarantined] == ["a/torn.png"]


def test_another_recipe_begins_anew(tmp_path: Path, decoded: list[int]) -> None:
    home = MemoryObjectStore()
    request = write(tmp_path, range(ROWS))
    prepared(request, home)
    decoded.clear()

    other = prepared(replace(request, image_size=16), home)

    assert len(decoded) == ROWS
    assert tensors(home, other)[0].shape[1:] == (16, 16, 3)


def test_refused_data_leave_what_others_need(tmp_path: Path) -> None:
    home = MemoryObjectStore()
    request = write(tmp_path, range(ROWS))
    first = prepared(request, home)
    stored = {entry.key for entry in home.list("")}
    for number in range(20):
        (tmp_path / "in" / "a" / f"bad-{number}.png").write_bytes(b"bad" + bytes([number]))
    write(tmp_path, range(ROWS, ROWS + 3))

    with pytest.raises(DataError, match="20 of the 83 rows"):
        prepared(request, home)

    assert {entry.key for entry in home.list("")} == stored
    assert len(tensors(home, first)[0]) == ROWS


@dataclass
class Stopping:
    """A store that fails at a write, before or after it is done.

    Attributes:
        inner: the store.
        writes: how many succeed.
        is_done: whether the one that fails is done all the same.
    """

    inner: MemoryObjectStore
    writes: int
    is_done: bool
    seen: list[str] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return self.inner.uri

    def get(self, key: str) -> StoredObject:
        return self.inner.get(key)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        return self.inner.list(prefix, start_after)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def put(self, key: str, data: bytes) -> None:
        self._count(lambda: self.inner.put(key, data), key)

    def put_if_absent(self, key: str, data: bytes) -> str:
        self._count(lambda: self.inner.put_if_absent(key, data), key)
        return ""

    def _count(self, write: object, key: str) -> None:
        assert callable(write)
        if len(self.seen) == self.writes:
            if self.is_done:
                write()
            raise StorageError("The store is away.")
        self.seen.append(key)
        write()


@pytest.mark.parametrize("is_done", [False, True])
def test_whenever_it_is_stopped_the_next_one_ends_with_the_same_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_done: bool,  # noqa: FBT001 - the reply to the write was lost
) -> None:
    monkeypatch.setattr("automl.tracks.image.reading.CHUNK_ROWS", 13)
    monkeypatch.setattr("automl.tracks.image.reading.KEPT_ROWS", 7)
    request = write(tmp_path, range(ROWS))
    undisturbed = Stopping(MemoryObjectStore(), 10**6, is_done)
    whole = prepare_here(request, undisturbed)

    for writes in range(len(undisturbed.seen)):
        home = Stopping(MemoryObjectStore(), writes, is_done)
        with pytest.raises(StorageError, match="away"):
            prepare_here(request, home)

        again = Stopping(home.inner, 10**6, is_done)
        assert prepare_here(request, again).id == whole.id
        assert content(again.inner) == content(undisturbed.inner)
        assert len(again.seen) <= len(undisturbed.seen) - writes + 4  # graph, index, notes


def prepare_here(request: ImageRequest, home: Stopping) -> ImageEnvelope:
    return prepare_images(request, home, here())


def _is_note(key: str) -> bool:
    return "/sources/" in key and key.endswith(".json")


def content(home: MemoryObjectStore) -> dict[str, bytes]:
    """Return all that is stored but the notes by which a source is recognised."""
    keys = [entry.key for entry in home.list("") if not _is_note(entry.key)]
    return {key: home.get(key).data for key in keys}
