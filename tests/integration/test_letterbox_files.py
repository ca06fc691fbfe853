"""Snapshots of letterboxed photographs, and the file that is published of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from automl.data.splits import Part
from automl.domain.candidate import Candidate
from automl.domain.specification import Resize, SmallClasses
from automl.onnx.model import OnnxModel
from automl.publishing.parity import check_parity
from automl.storage.file import FileObjectStore
from automl.tracks.image.dataset import ImageDataset
from automl.tracks.image.prepare import prepare_images
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.snapshot import ImageSnapshot
from automl.tracks.image.track import TRACK
from automl.tracks.track import Member, Use
from automl.training.results import weights_to_bytes
from benchmarks.shared_data import shared_dataset
from tests.letterboxes import preprocessing_of, tiny_network
from tests.local import here

SIZE = 48
PER_SHAPE = 1


def photographs() -> Iterator[tuple[str, str]]:
    """Yield names and labels of photographs, one of each shape."""
    from PIL import Image

    seen: dict[tuple[int, int], int] = {}
    for path in sorted((shared_dataset("clothing") / "images").iterdir()):
        with Image.open(path) as image:
            shape = image.size
        seen[shape] = seen.get(shape, 0) + 1
        if seen[shape] <= PER_SHAPE:
            yield path.name, path.name.partition("_")[0]


@pytest.mark.needs_shared("clothing")
def test_the_published_file_sees_photographs_as_training_saw_them(tmp_path: Path) -> None:
    rows = list(photographs())
    lines = ["path,label", *(f"{name},{label}" for name, label in rows)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    request = ImageRequest(
        "clothing",
        FileObjectStore(tmp_path),
        "rows.csv",
        FileObjectStore(shared_dataset("clothing")),
        "images",
        image_size=SIZE,
        resize=Resize.LETTERBOX,
        validation_fraction=0.4,
        test_fraction=0.5,
        small_classes=SmallClasses.DROP,
    )
    home = FileObjectStore(tmp_path / "home")

    envelope = prepare_images(request, home, here())

    dataset = ImageDataset(ImageSnapshot.open(home, "clothing", envelope.id))
    architecture, weights = tiny_network(SIZE, len(envelope.classes))
    candidate = Candidate(genotype=architecture.genotype(), hyperparameters={})
    member = Member(candidate, weights_to_bytes(weights), dataset.details, 1.0, "weights")
    data = dataset.emit([member], {"study": "clothing"})
    preprocess = preprocessing_of(data)
    parts = (Part.SELECTION, Part.CALIBRATION, Part.GATE, Part.REPORT)
    files, (tensors, _) = list(dataset.snapshot.files(*parts)), dataset.snapshot.tensors(*parts)
    assert len({file.pixels.shape for file in files}) > 80
    for file, tensor in zip(files, tensors, strict=True):
        np.testing.assert_array_equal(preprocess(file.pixels[None])[0], tensor)
    feeds = [row.feed for row in dataset.raw(Use.HELD_OUT)]
    reference = dataset.reference([member], len(feeds))
    assert check_parity(reference, OnnxModel(data), feeds, TRACK.tolerance).ok
    assert dataset.file_facts([member]).input["resize"] == "letterbox"
    assert json.loads(envelope.to_bytes())["resize"] == "letterbox"
