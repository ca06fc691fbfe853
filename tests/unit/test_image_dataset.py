from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from automl.data.snapshot import Envelope
from automl.data.splits import Part
from automl.storage.file import FileObjectStore
from automl.tracks.image.dataset import ImageDataset
from automl.tracks.image.decode import pixel_digest
from automl.tracks.image.track import TRACK
from automl.tracks.track import Use

GOLDEN = FileObjectStore(Path(__file__).parent / "golden" / "snapshot-1")
SNAPSHOT = "b9444f79c51b73d45ae8"


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    opened = TRACK.open(GOLDEN, "pictures", SNAPSHOT)
    assert isinstance(opened, ImageDataset)
    return opened


def test_an_older_snapshot_is_read_as_any_tracks(dataset: ImageDataset) -> None:
    envelope = Envelope.read(GOLDEN, "pictures", SNAPSHOT)

    assert envelope.id == dataset.envelope.id == SNAPSHOT
    assert envelope.counts == dataset.envelope.counts
    assert envelope.thresholds == dataset.envelope.thresholds
    assert envelope.model_extra is not None
    assert envelope.model_extra["classes"] == list(dataset.labels)
    assert type(dataset.envelope).from_bytes(envelope.to_bytes(), "copy") == dataset.envelope


def test_what_is_held_out_is_read_in_the_order_of_the_tensors(dataset: ImageDataset) -> None:
    rows = list(dataset.raw(Use.HELD_OUT))
    _, labels = dataset.snapshot.tensors(Part.SELECTION, Part.CALIBRATION)

    assert [row.truth for row in rows] == labels.tolist()


def test_rows_have_keys_that_only_their_pixels_decide(dataset: ImageDataset) -> None:
    for row in dataset.raw(Use.HELD_OUT):
        (pixels,) = row.feed["image"]
        assert pixels.dtype == np.uint8
        assert row.key == pixel_digest(pixels)


def test_few_test_rows_serve_the_gate_and_the_report(dataset: ImageDataset) -> None:
    gate, report = ([row.key for row in dataset.raw(use)] for use in (Use.GATE, Use.REPORT))

    assert gate == report
    assert len(gate) == dataset.envelope.counts[Part.GATE] + dataset.envelope.counts[Part.REPORT]


def test_a_search_depends_on_the_size_of_images_and_on_classes(dataset: ImageDataset) -> None:
    assert dataset.size_facts() == {
        "image_size": dataset.envelope.image_size,
        "classes": len(dataset.labels),
        "version": TRACK.version,
    }
