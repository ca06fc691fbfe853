from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import distributed
import numpy as np
import psutil
import pytest

from automl.data.cluster import local_client
from automl.data.dask import open_workers
from automl.data.splits import Part
from automl.domain.specification import SearchSection, SmallClasses
from automl.errors import DamagedDataError, DataError, NewerSchemaError, NotFoundError
from automl.storage.file import FileObjectStore
from automl.tracks.image.decode import decode_image, encode_png, pixel_digest
from automl.tracks.image.passes import unreadable
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.resize import ImagePreprocessor
from automl.tracks.image.samples import write_digits
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from automl.tracks.image.sources import SourceLocation, list_source
from benchmarks.shared_data import shared_dataset
from tests.dask_tasks import kept_bytes
from tests.local import here

A_SECOND = {"time_limit": "1s", "resources": {"gpus": 0}}  # of a search, on CPUs
HELD_OUT = (Part.SELECTION, Part.CALIBRATION, Part.GATE, Part.REPORT)


def silent(done: int, total: int, what: str) -> None:
    assert 0 <= done <= total, what


@pytest.fixture
def home(tmp_path: Path) -> FileObjectStore:
    return FileObjectStore(tmp_path / "home")


def picture(number: int, height: int = 12, width: int = 10) -> bytes:
    rng = np.random.default_rng(number)
    return encode_png(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_rows(folder: Path, rows: list[tuple[str, str, bytes]]) -> ImageRequest:
    """Write a manifest and its images; return the request for them."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["File Name,Label"]
    for name, label, data in rows:
        (folder / "images" / name).write_bytes(data)
        lines.append(f"{name},{label}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    store = FileObjectStore(folder)
    return ImageRequest("pictures", store, "train.csv", store, "images")


def two_classes(n: int = 40) -> list[tuple[str, str, bytes]]:
    return [(f"{i:03d}.png", "ab"[i % 2], picture(i)) for i in range(n)]


def where(store: FileObjectStore, manifest: ImageEnvelope) -> dict[str, Part]:
    snapshot = ImageSnapshot.open(store, manifest.dataset, manifest.id)
    return {row.path: part for part in HELD_OUT for row in snapshot.files(part)}


def test_digits_become_a_snapshot(tmp_path: Path, home: FileObjectStore) -> None:
    study = write_digits(tmp_path / "digits")
    source = FileObjectStore(study.parent)
    request = ImageRequest("digits", source, "train.csv", source, "images")
    seen: list[tuple[int, int, str]] = []

    manifest = prepare_images(request, home, here(lambda *step: seen.append(step)))

    assert manifest.classes == tuple("0123456789")
    assert manifest.image_size == 8
    assert "median" in manifest.image_size_reason
    assert sum(manifest.counts.values()) == 1797
    assert not manifest.quarantined
    assert (1797, 1797, "reading rows") in seen
    assert seen[-1][2] == "keeping held-out files"
    assert seen[-1][0] == seen[-1][1] < 1797
    snapshot = ImageSnapshot.open(home, "digits", manifest.id)
    images, labels = snapshot.tensors(Part.TRAIN)
    mapped, same = snapshot.mapped_tensors(Part.TRAIN)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, images)
    np.testing.assert_array_equal(same, labels)
    assert snapshot.size_bytes(Part.TRAIN) == images.nbytes
    assert images.shape == (manifest.counts[Part.TRAIN], 8, 8, 3)
    assert labels.dtype == np.int64
    np.testing.assert_allclose(manifest.mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(manifest.std, images.std(axis=(0, 1, 2)), rtol=1e-9)


def test_the_graph_gives_the_snapshots_tensors_bit_for_bit(
    tmp_path: Path, home: FileObjectStore
) -> None:
    sizes = [(12, 10), (40, 33), (8, 8), (5, 90), (64, 64)]
    rows = [
        (f"{i:03d}.png", "ab"[i % 2], picture(i, *sizes[i // 2 % len(sizes)])) for i in range(100)
    ]
    request = replace(write_rows(tmp_path / "in", rows), image_size=16)

    manifest = prepare_images(request, home, here(silent))

    assert_graph_gives_tensors(ImageSnapshot.open(home, "pictures", manifest.id))


@pytest.mark.needs_shared("clothing")
def test_the_graph_is_exact_for_photographs_of_every_size(
    tmp_path: Path, home: FileObjectStore
) -> None:
    by_shape: dict[tuple[int, ...], list[tuple[str, bytes]]] = {}
    for path in sorted((shared_dataset("clothing") / "images").iterdir()):
        data = path.read_bytes()
        group = by_shape.setdefault(decode_image(data).shape, [])
        if len(group) < 3:
            group.append((path.name, data))
    files = [file for group in by_shape.values() for file in group]
    rows = [(name, "ab"[i % 2], data) for i, (name, data) in enumerate(files)]
    request = write_rows(tmp_path / "in", rows)

    manifest = prepare_images(request, home, here(silent))

    tensors = images_by_digest(home, manifest)
    preprocess = ImagePreprocessor(ImageSnapshot.open(home, "pictures", manifest.id).preprocess)
    assert len(by_shape) > 100
    for group in by_shape.values():
        pixels = [decode_image(data) for _, data in group]
        stored = [tensors[pixel_digest(image)] for image in pixels]
        np.testing.assert_array_equal(preprocess(np.stack(pixels)), np.stack(stored))
        for image, tensor in zip(pixels, stored, strict=True):
            np.testing.assert_array_equal(preprocess(image[None])[0], tensor)


def images_by_digest(store: FileObjectStore, manifest: ImageEnvelope) -> dict[str, np.ndarray]:
    snapshot = ImageSnapshot.open(store, manifest.dataset, manifest.id)
    images, _ = snapshot.tensors(*Part)
    names = [digest for part in Part for digest in snapshot.digests(part)]
    return dict(zip(names, images, strict=True))


def assert_graph_gives_tensors(snapshot: ImageSnapshot) -> None:
    preprocess = ImagePreprocessor(snapshot.preprocess)
    images, labels = snapshot.tensors(*HELD_OUT)
    rows = list(snapshot.files(*HELD_OUT))
    assert [row.label for row in rows] == labels.tolist()
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(preprocess(row.pixels[None])[0], images[index])
        by_shape.setdefault(row.pixels.shape, []).append(index)
    for indices in by_shape.values():
        batch = preprocess(np.stack([rows[index].pixels for index in indices]))
        np.testing.assert_array_equal(batch, images[indices])


def test_the_same_listing_is_prepared_once(tmp_path: Path, home: FileObjectStore) -> None:
    request = write_rows(tmp_path / "in", two_classes())
    first = prepare_images(request, home, here(silent))
    calls: list[str] = []

    for thresholds in (None, first.thresholds):
        again = prepare_images(
            replace(request, thresholds=thresholds),
            home,
            here(lambda *step: calls.append(step[2])),
        )
        assert again.reused
        assert again.id == first.id

    assert not first.reused
    assert not calls


def test_the_same_rows_elsewhere_are_the_same_snapshot(
    tmp_path: Path, home: FileObjectStore
) -> None:
    rows = two_classes()
    first = write_rows(tmp_path / "in", rows)
    renamed = [(f"moved-{name}", label, data) for name, label, data in reversed(rows)]
    second = write_rows(tmp_path / "elsewhere", renamed)

    one = prepare_images(first, home, here(silent))
    other = prepare_images(second, home, here(silent))

    assert other.reused
    assert other.id == one.id


def test_added_rows_keep_the_split_of_the_others(tmp_path: Path, home: FileObjectStore) -> None:
    request = write_rows(tmp_path / "in", two_classes(60))
    first = prepare_images(request, home, here(silent))
    write_rows(tmp_path / "in", two_classes(90))

    grown = prepare_images(replace(request, thresholds=first.thresholds), home, here(silent))

    old = {f"{i:03d}.png" for i in range(60)}
    assert grown.id != first.id
    assert grown.thresholds == first.thresholds
    assert {p: part for p, part in where(home, grown).items() if p in old} == where(home, first)


def test_duplicates_share_one_part(tmp_path: Path, home: FileObjectStore) -> None:
    rows = two_classes(60)
    copies = [(f"copy-{name}", label, data) for name, label, data in rows]
    request = write_rows(tmp_path / "in", rows + copies)

    parts = where(home, prepare_images(request, home, here(silent)))

    assert parts
    for name, _, _ in rows:
        assert parts.get(name) == parts.get(f"copy-{name}")


def test_a_few_bad_rows_are_quarantined_with_their_reasons(
    tmp_path: Path, home: FileObjectStore
) -> None:
    rows = [*two_classes(60), ("torn.png", "a", picture(99)[:70]), ("text.png", "b", b"hello")]
    request = write_rows(tmp_path / "in", rows)
    with (tmp_path / "in" / "train.csv").open("a", encoding="utf-8") as manifest_file:
        manifest_file.write("gone.png,a\n../train.csv,b\n001.png,\n")

    manifest = prepare_images(replace(request, max_bad_fraction=0.1), home, here(silent))

    reasons = {row.path: row.reason for row in manifest.quarantined}
    assert list(reasons) == ["torn.png", "text.png", "gone.png", "../train.csv", "001.png"]
    assert "cannot be decoded" in reasons["torn.png"]
    assert "not an image" in reasons["text.png"]
    assert reasons["gone.png"] == "there is no such file"
    assert "leaves the folder" in reasons["../train.csv"]
    assert reasons["001.png"] == "the row has no label"
    assert sum(manifest.counts.values()) == 60


def test_an_image_with_too_many_pixels_is_quarantined_until_more_are_allowed(
    tmp_path: Path, home: FileObjectStore
) -> None:
    request = write_rows(tmp_path / "in", [*two_classes(30), ("wide.png", "a", picture(99, 8, 90))])

    strict = prepare_images(replace(request, max_pixels=719), home, here(silent))
    liberal = prepare_images(replace(request, max_pixels=720), home, here(silent))

    assert [row.path for row in strict.quarantined] == ["wide.png"]
    assert "90 by 8 pixels, more than 719 (data.max_pixels)" in strict.quarantined[0].reason
    assert not liberal.quarantined
    assert sum(liberal.counts.values()) == 31


def test_too_many_bad_rows_stop_the_run_and_write_nothing(
    tmp_path: Path, home: FileObjectStore
) -> None:
    rows = [*two_classes(20), ("x.png", "a", b"hello"), ("y.png", "a", b"")]
    request = write_rows(tmp_path / "in", rows)

    with pytest.raises(DataError, match="2 of the 22 rows") as caught:
        prepare_images(request, home, here(silent))

    assert [problem.path for problem in caught.value.problems] == ["x.png", "y.png"]
    assert not list(home.list(""))


def test_classes_that_cannot_be_learnt_are_all_named(tmp_path: Path, home: FileObjectStore) -> None:
    rows = [*two_classes(10), ("p.png", "rare", picture(50)), ("q.png", "odd", picture(51))]
    request = write_rows(tmp_path / "in", rows)

    with pytest.raises(DataError) as caught:
        prepare_images(request, home, here(silent))

    assert [problem.path for problem in caught.value.problems] == ["odd", "rare"]


def test_small_classes_are_left_out_where_that_is_asked_for(
    tmp_path: Path, home: FileObjectStore
) -> None:
    rare = [("r0.png", "rare", picture(90)), ("r1.png", "rare", picture(91))]
    request = write_rows(tmp_path / "in", [*two_classes(20), *rare])

    with pytest.raises(DataError, match=r"data\.small_classes to drop"):
        prepare_images(request, home, here(silent))
    asked = replace(request, small_classes=SmallClasses.DROP)
    manifest = prepare_images(asked, home, here(silent))

    assert manifest.classes == ("a", "b")
    assert [row.path for row in manifest.quarantined] == ["r0.png", "r1.png"]
    assert "class rare has 2 usable rows: fewer than 3" in manifest.quarantined[0].reason


def test_one_class_is_refused(tmp_path: Path, home: FileObjectStore) -> None:
    rows = [(name, "a", data) for name, _, data in two_classes(10)]
    request = write_rows(tmp_path / "in", rows)

    with pytest.raises(DataError, match="two classes or more"):
        prepare_images(request, home, here(silent))


def test_missing_columns_are_refused_with_those_expected(
    tmp_path: Path, home: FileObjectStore
) -> None:
    request = write_rows(tmp_path / "in", two_classes(10))

    with pytest.raises(DataError, match="has 2 columns, but no 'kind'"):
        prepare_images(replace(request, label="kind"), home, here(silent))


def test_a_manifest_without_rows_is_refused(tmp_path: Path, home: FileObjectStore) -> None:
    request = write_rows(tmp_path / "in", [])

    with pytest.raises(DataError, match="has no rows"):
        prepare_images(request, home, here(silent))


def test_a_source_that_does_not_exist_is_refused(tmp_path: Path, home: FileObjectStore) -> None:
    store = FileObjectStore(tmp_path)

    for key in ("no.csv", "no.npz", "no-folder"):
        with pytest.raises(DataError):
            prepare_images(ImageRequest("none", store, key), home, here(silent))


def test_folders_are_classes(tmp_path: Path, home: FileObjectStore) -> None:
    for number in range(20):
        folder = tmp_path / "pets" / ("cat" if number % 2 else "dog") / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.PNG").write_bytes(picture(number))
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / "cover.png").write_bytes(picture(1))
    (tmp_path / "pets2" / "bird").mkdir(parents=True)
    (tmp_path / "pets2" / "bird" / "b.png").write_bytes(picture(2))
    request = ImageRequest("pets", FileObjectStore(tmp_path), "pets")

    manifest = prepare_images(request, home, here(silent))

    assert manifest.classes == ("cat", "dog")
    assert sum(manifest.counts.values()) == 20


@pytest.mark.parametrize("shape", [(40, 9, 7), (40, 9, 7, 1), (40, 9, 7, 3)])
def test_arrays_are_rows(tmp_path: Path, home: FileObjectStore, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(40) % 2)
    request = ImageRequest("arrays", FileObjectStore(tmp_path), "data.npz")

    manifest = prepare_images(request, home, here(silent))

    assert manifest.classes == ("0", "1")
    assert manifest.image_size == 8
    snapshot = ImageSnapshot.open(home, "arrays", manifest.id)
    assert_graph_gives_tensors(snapshot)
    for row in snapshot.files(*HELD_OUT):
        index = int(row.path.removeprefix("x[").removesuffix("]"))
        expected = np.broadcast_to(x[index].reshape(9, 7, -1), (9, 7, 3))
        np.testing.assert_array_equal(row.pixels, expected)
        assert row.label == index % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 8, 8), np.uint8)}, "no array 'y'"),
        ({"x": np.zeros((4, 8, 8)), "y": np.arange(4)}, "float64"),
        ({"x": np.zeros((4, 8, 8), np.uint8), "y": np.arange(3)}, "x has 4 rows"),
        ({"x": np.zeros((2, 8, 8), np.uint8), "y": np.array([None, 1])}, "no numbers or texts"),
    ],
)
def test_unusable_arrays_are_refused(
    tmp_path: Path,
    home: FileObjectStore,
    arrays: dict[str, np.ndarray],
    message: str,
) -> None:
    np.savez(tmp_path / "data.npz", allow_pickle=True, **arrays)
    request = ImageRequest("arrays", FileObjectStore(tmp_path), "data.npz")

    with pytest.raises(DataError, match=message):
        prepare_images(request, home, here(silent))


def test_large_images_are_reduced_to_the_next_size(tmp_path: Path, home: FileObjectStore) -> None:
    rows = [(f"{i}.png", "ab"[i % 2], picture(i, 100, 90)) for i in range(12)]
    request = write_rows(tmp_path / "in", rows)

    manifest = prepare_images(request, home, here(silent))

    assert manifest.image_size == 96
    assert manifest.image_size_reason == (
        "auto: the median of the images' longer sides is 100 pixels, and the next size, 128 px, "
        "would enlarge it"
    )


def test_what_the_study_gives_to_trainings_decides_about_the_size_until_it_is_fixed(
    tmp_path: Path, home: FileObjectStore
) -> None:
    rows = [(f"{i}.png", "ab"[i % 2], picture(i, 100, 90)) for i in range(12)]
    long = write_rows(tmp_path / "in", rows)
    short = replace(long, search=SearchSection.model_validate({**A_SECOND, "max_trials": 100}))
    known = prepare_images(long, home, here(silent))
    fixed = replace(short, thresholds=known.thresholds, fixed_size=known.image_size)

    assert prepare_images(short, home, here(silent)).image_size == 64
    assert prepare_images(long, home, here(silent)).reused
    again = prepare_images(fixed, home, here(silent))
    assert (again.id, again.reused) == (known.id, True)


@pytest.mark.needs_shared("clothing")
def test_photographs_keep_their_size_where_there_is_time(
    tmp_path: Path, home: FileObjectStore
) -> None:
    place = shared_dataset("clothing")
    lines = (place / "train.csv").read_text(encoding="utf-8-sig").splitlines()
    (tmp_path / "train.csv").write_text("\n".join(lines[:301]) + "\n")
    request = ImageRequest(
        "clothing", FileObjectStore(tmp_path), "train.csv", FileObjectStore(place), "images"
    )
    short = replace(request, search=SearchSection.model_validate(A_SECOND))

    many, few = (prepare_images(one, home, here(silent)) for one in (request, short))

    assert (many.image_size, few.image_size) == (128, 64)
    assert few.image_size_reason.startswith("auto: the median of the images' longer sides is 128")
    assert few.image_size_reason.endswith(
        "at 96 px a search of 1s by 2 workers on 1 CPU thread each would train EfficientNet-Lite0 "
        "for fewer than 5 epochs of 180 rows"
    )


def test_blocks_are_bounded_by_the_bytes_of_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(write_rows(tmp_path / "in", two_classes(60)), image_size=8)
    tensors = []
    for number, most in enumerate((10**6, 7 * 8 * 8 * 3 + 191)):
        monkeypatch.setattr("automl.tracks.image.reading.IMAGE_BYTES", most)
        home = FileObjectStore(tmp_path / f"home-{number}")
        manifest = prepare_images(request, home, here(silent))
        tensors.append(ImageSnapshot.open(home, "pictures", manifest.id).tensors(*Part))

    assert [block.rows for block in manifest.blocks].count(7) == 8
    assert sorted(block.rows for block in manifest.blocks)[0] == 4
    for few, many in zip(*tensors, strict=True):
        np.testing.assert_array_equal(few, many)


def test_three_rows_per_class_are_enough(tmp_path: Path, home: FileObjectStore) -> None:
    request = write_rows(tmp_path / "in", two_classes(6))

    manifest = prepare_images(request, home, here(silent))

    assert manifest.counts[Part.TRAIN] == manifest.counts[Part.SELECTION] == 2


def test_a_damaged_block_is_noticed(tmp_path: Path, home: FileObjectStore) -> None:
    request = write_rows(tmp_path / "in", two_classes())
    manifest = prepare_images(request, home, here(silent))
    (block,) = manifest.blocks
    content = bytearray(home.get(block.key).data)
    content[-1] ^= 1
    home.put(block.key, bytes(content))

    with pytest.raises(DamagedDataError, match=block.key):
        ImageSnapshot.open(home, "pictures", manifest.id).tensors(Part.TRAIN)


def test_a_newer_manifest_is_refused(tmp_path: Path, home: FileObjectStore) -> None:
    request = write_rows(tmp_path / "in", two_classes())
    manifest = prepare_images(request, home, here(silent))
    key = f"datasets/pictures/{manifest.id}/manifest.json"
    newer = json.loads(home.get(key).data) | {"schema": 3, "extra": True}
    home.put(key, json.dumps(newer).encode())

    with pytest.raises(NewerSchemaError, match="upgrade"):
        ImageSnapshot.open(home, "pictures", manifest.id)


def test_a_deleted_snapshot_is_built_again(tmp_path: Path, home: FileObjectStore) -> None:
    request = write_rows(tmp_path / "in", two_classes())
    first = prepare_images(request, home, here(silent))
    for entry in list(home.list(f"datasets/pictures/{first.id}/")):
        home.delete(entry.key)
    with pytest.raises(NotFoundError):
        ImageSnapshot.open(home, "pictures", first.id)

    again = prepare_images(request, home, here(silent))

    assert not again.reused
    assert again == first
    assert ImageSnapshot.open(home, "pictures", first.id).tensors(Part.TRAIN)[0].size


def test_training_rows_keep_no_files(tmp_path: Path, home: FileObjectStore) -> None:
    request = write_rows(tmp_path / "in", two_classes())
    manifest = prepare_images(request, home, here(silent))

    with pytest.raises(DataError, match="no files of training rows"):
        ImageSnapshot.open(home, "pictures", manifest.id).files(Part.TRAIN)


def test_a_local_client_has_as_many_processes_as_it_is_told() -> None:
    with local_client(3) as three:
        three.wait_for_workers(3, timeout=60)
        numbers = {
            three.submit(os.getpid, pure=False, workers=[w]).result() for w in three.nthreads()
        }

        assert len(numbers) == 3
        assert os.getpid() not in numbers
    for number in numbers:
        assert not psutil.pid_exists(number)


def test_local_workers_give_the_memory_of_large_images_back() -> None:
    with local_client(1) as client:
        assert client.submit(kept_bytes).result() < 50 * 2**20


def test_an_error_ends_the_processes_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), local_client(1) as client:  # noqa: PT012
        number = client.submit(os.getpid).result()
        client.submit(time.sleep, 3600)
        raise KeyboardInterrupt

    assert not psutil.pid_exists(number)


def test_a_table_or_arrays_beyond_memory_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("listing", "sources"):
        monkeypatch.setattr(f"automl.tracks.image.{module}.usable_bytes", lambda: 4000)
    for name, size in {"rows.csv": 100, "rows.npz": 3000}.items():
        (tmp_path / name).write_bytes(bytes(size))
        with pytest.raises(DataError, match=f"has {size:,} bytes, and may have"):
            list_source(SourceLocation(FileObjectStore(tmp_path), name))


def test_a_file_that_is_too_large_for_an_image_is_left_out(tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        (tmp_path / "in" / "cat").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "cat" / name).write_bytes(picture(1))
    with (tmp_path / "in" / "cat" / "1.png").open("r+b") as file:
        file.truncate(2**31)  # takes no room

    listing = list_source(SourceLocation(FileObjectStore(tmp_path), "in"))
    found = [unreadable(row, 10**6) for row in listing.rows]

    assert found[0] == ""
    assert "2,147,483,648 bytes, more than the 20,777,216" in found[1]


def test_other_processes_build_the_same_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = write_rows(tmp_path / "in", two_classes())
    monkeypatch.setattr("automl.tracks.image.reading.CHUNK_ROWS", 4)
    found = {"here": prepare_images(request, FileObjectStore(tmp_path / "here"), here(silent))}
    with open_workers(2, silent) as workers:
        found["beside"] = prepare_images(request, FileObjectStore(tmp_path / "beside"), workers)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        with open_workers(2, silent) as workers:
            found["there"] = prepare_images(request, FileObjectStore(tmp_path / "there"), workers)

    assert len(found["here"].blocks) == 10
    assert found["here"] == found["beside"] == found["there"]
    stored = [stored_in(tmp_path / name) for name in found]
    assert stored[0] == stored[1] == stored[2]


def stored_in(folder: Path) -> dict[str, bytes]:
    store = FileObjectStore(folder)
    return {entry.key: store.get(entry.key).data for entry in store.list("")}
