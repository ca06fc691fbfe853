"""Near-duplicates in preparations: they never straddle the parts of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from automl.data.near_duplicates import find_near_duplicates
from automl.data.splits import PARTS, Part
from automl.domain.specification import Split
from automl.errors import DataError
from automl.storage.file import FileObjectStore
from automl.tracks.image.audit import audited_rows
from automl.tracks.image.hashing import difference_hashes, thumbnails
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from automl.tracks.image.tables import FurtherColumn
from benchmarks.shared_data import shared_dataset
from tests.local import here

LEVELS = {Part.TRAIN: 0, Part.SELECTION: 1, Part.CALIBRATION: 2, Part.GATE: 3, Part.REPORT: 3}


def scene(number: int) -> NDArray[np.floating[Any]]:
    rng = np.random.default_rng(number)
    return np.kron(rng.uniform(30, 220, (6, 6, 3)), np.ones((8, 8, 1)))


def take(number: int, shot: int) -> NDArray[np.uint8]:
    """Return a photograph of a scene: another shot differs by a little noise."""
    rng = np.random.default_rng([number, shot])
    return np.clip(scene(number) + rng.normal(0, 4, (48, 48, 3)), 0, 255).astype(np.uint8)


def write(folder: Path, scenes: Sequence[int], shots: Sequence[int]) -> None:
    for number in scenes:
        for shot in shots:
            place = folder / "ab"[number % 2] / f"{number:03d}-{shot}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(take(number, shot)).save(place)


def prepared(
    store: FileObjectStore, folder: Path, before: ImageEnvelope | None = None
) -> ImageEnvelope:
    thresholds = None if before is None else before.thresholds
    source = FileObjectStore(folder.parent)
    request = ImageRequest("scenes", source, folder.name, image_size=32, thresholds=thresholds)
    return prepare_images(request, store, here())


def parts_of(store: FileObjectStore, envelope: ImageEnvelope) -> dict[str, str]:
    rows = audited_rows(store, envelope.dataset, envelope.id, ())
    return dict(zip(rows.paths, rows.parts.tolist(), strict=True))


def straddling(store: FileObjectStore, envelope: ImageEnvelope) -> int:
    """Return how many pairs of pictures of one scene are in parts of different levels."""
    parts = parts_of(store, envelope)
    scenes: dict[str, set[int]] = {}
    for path, part in parts.items():
        scenes.setdefault(path.split("/")[-1].split("-")[0], set()).add(LEVELS[Part(part)])
    return sum(len(levels) > 1 for levels in scenes.values())


def test_look_alikes_never_straddle_and_no_row_moves_as_the_data_change(tmp_path: Path) -> None:
    store, folder = FileObjectStore(tmp_path / "home"), tmp_path / "rows"
    write(folder, range(120), [0])
    write(folder, range(40), [1])
    first = prepared(store, folder)
    write(folder, range(120, 132), [0])
    write(folder, range(30, 60), [2])
    for number in range(100, 108):
        (folder / "ab"[number % 2] / f"{number:03d}-0.png").unlink()

    second = prepared(store, folder, first)

    assert straddling(store, first) == straddling(store, second) == 0
    assert 5 < len(first.excluded) < 40
    one, other = parts_of(store, first), parts_of(store, second)
    left_out = {row.path: row.part for row in second.excluded}
    one |= {row.path: row.part for row in first.excluded}
    for path in one:
        now = other.get(path, left_out.get(path))
        assert now in (one[path], None), path
        assert (now is None) == (path[2:5] in {f"{n}" for n in range(100, 108)})
    assert sum(second.counts.values()) + len(second.excluded) == 120 + 40 + 12 + 30 - 8
    assert second.profile is not None
    assert second.profile.quarantined == 0
    (finding,) = [each for each in second.findings if each.kind == "excluded_rows"]
    assert finding.count == len(second.excluded)
    for row in second.excluded:
        assert row.path.split("-")[0] == row.near.split("-")[0]
        assert other[row.near] == row.near_part
        assert LEVELS[Part(row.part)] < LEVELS[Part(row.near_part)]
        assert 0 < row.distance <= 10


def test_a_row_that_was_left_out_comes_back_when_its_look_alike_is_gone(tmp_path: Path) -> None:
    store, folder = FileObjectStore(tmp_path / "home"), tmp_path / "rows"
    write(folder, range(60), [0, 1])
    first = prepared(store, folder)
    gone = first.excluded[0]
    for row in first.excluded:
        (folder / row.near).unlink(missing_ok=True)

    second = prepared(store, folder, first)

    assert parts_of(store, second)[gone.path] == gone.part
    assert second.excluded == ()


def test_series_of_pictures_that_leave_nothing_to_learn_from_are_refused(tmp_path: Path) -> None:
    store, folder = FileObjectStore(tmp_path / "home"), tmp_path / "rows"
    write(folder, range(12), range(9))

    with pytest.raises(DataError, match="more show nearly what held-out rows do") as caught:
        prepared(store, folder)

    assert "data.split: group" in str(caught.value.hint)
    assert list(store.list("datasets/")) == []


def test_pictures_that_all_look_alike_stay_and_are_told(tmp_path: Path) -> None:
    store, folder = FileObjectStore(tmp_path / "home"), tmp_path / "rows"
    write(folder, range(2), range(20))

    envelope = prepared(store, folder)

    assert sum(envelope.counts.values()) == 40
    (finding,) = [each for each in envelope.findings if each.kind == "series_of_rows"]
    assert finding.count == 40
    assert "data.split: group" in finding.message


@pytest.mark.needs_shared("plant_seedlings")
def test_no_seedling_of_the_test_set_is_photographed_among_the_others(tmp_path: Path) -> None:
    folder = shared_dataset("plant_seedlings")
    store, source = FileObjectStore(tmp_path / "home"), FileObjectStore(folder)
    request = ImageRequest(
        "seedlings",
        source,
        "train.csv",
        images=source,
        images_prefix="images",
        test=(source, "test.csv"),
        image_size=64,
        test_fraction=0.0,
    )

    envelope = prepare_images(request, store, here())

    snapshot = ImageSnapshot.open(store, envelope.dataset, envelope.id)
    small = thumbnails(snapshot.tensors(*PARTS)[0])
    levels = np.repeat([LEVELS[part] for part in PARTS], [envelope.counts[p] for p in PARTS])
    found = find_near_duplicates(difference_hashes(small), small.__getitem__)
    assert len(found.pairs) > 10
    assert (levels[found.pairs[:, 0]] == levels[found.pairs[:, 1]]).all()
    assert {row.near_part for row in envelope.excluded} >= {"gate", "report"}
    assert envelope.counts[Part.TRAIN] > 2000


def test_split_by_group_leaves_look_alikes_out_too(tmp_path: Path) -> None:
    store, folder = FileObjectStore(tmp_path / "home"), tmp_path / "rows"
    write(folder, range(60), [0, 1])
    lines = ["path,label,day"]
    for path in sorted(folder.rglob("*.png")):
        name = path.relative_to(folder).as_posix()
        lines.append(f"{name},{name[0]},{name[-5]}{name[3:5]}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    request = ImageRequest(
        "scenes",
        FileObjectStore(folder),
        "rows.csv",
        further=FurtherColumn("day", "data.group"),
        split=Split.GROUP,
        image_size=32,
    )

    envelope = prepare_images(request, store, here())

    assert envelope.excluded
    assert straddling(store, envelope) == 0
