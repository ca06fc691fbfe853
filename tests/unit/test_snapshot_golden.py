from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from automl.data.splits import Part
from automl.storage.file import FileObjectStore
from automl.tracks.image.resize import ImagePreprocessor
from automl.tracks.image.snapshot import ImageSnapshot

GOLDEN = Path(__file__).parent / "golden" / "snapshot-1"


def test_a_snapshot_of_schema_1_still_loads() -> None:
    snapshot = ImageSnapshot.open(FileObjectStore(GOLDEN), "pictures", "b9444f79c51b73d45ae8")

    images, labels = snapshot.tensors(*Part)

    assert snapshot.envelope.classes == ("a", "b")
    assert snapshot.envelope.counts[Part.TRAIN] == 8
    assert labels.tolist() == [1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1]
    assert hashlib.sha256(images.tobytes()).hexdigest() == (
        "9da4ee6bcb7eabdaba45f604b635f7329b36856d61f9a1ed7a5c0033c0548720"
    )


def test_the_graph_of_schema_1_still_gives_its_tensors() -> None:
    snapshot = ImageSnapshot.open(FileObjectStore(GOLDEN), "pictures", "b9444f79c51b73d45ae8")
    preprocess = ImagePreprocessor(snapshot.preprocess)

    images, _ = snapshot.tensors(Part.SELECTION, Part.GATE)
    rows = list(snapshot.files(Part.SELECTION, Part.GATE))

    assert [row.path for row in rows] == ["004.png", "011.png", "005.png", "002.png"]
    for row, image in zip(rows, images, strict=True):
        np.testing.assert_array_equal(preprocess(row.pixels[None])[0], image)


def test_a_snapshot_of_schema_2_still_loads() -> None:
    store = FileObjectStore(GOLDEN.with_name("snapshot-2"))
    snapshot = ImageSnapshot.open(store, "pictures", "2675d0160e01c5d7fcaf")

    images, labels = snapshot.tensors(*Part)
    rows = list(snapshot.files(Part.SELECTION, Part.GATE))

    assert snapshot.envelope.counts[Part.TRAIN] == 8
    assert labels.tolist() == [0, 1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 1]
    assert hashlib.sha256(images.tobytes()).hexdigest() == (
        "71aac28688ed3b70228fb31a68bc50b1960146c2a62ef70d77f889a6d8608f4b"
    )
    preprocess = ImagePreprocessor(snapshot.preprocess)
    held_out, _ = snapshot.tensors(Part.SELECTION, Part.GATE)
    assert [row.path for row in rows] == [
        "a/12.png",
        "b/13.png",
        "a/00.png",
        "a/06.png",
        "b/11.png",
    ]
    for row, image in zip(rows, held_out, strict=True):
        np.testing.assert_array_equal(preprocess(row.pixels[None])[0], image)
