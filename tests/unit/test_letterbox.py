"""Letterbox: what the snapshot's builder computes is what the published file computes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from automl.api import load_image_dataset
from automl.domain.specification import Resize
from automl.errors import ConfigError
from automl.tracks.image.decode import encode_png
from automl.tracks.image.file import misfits
from automl.tracks.image.resize import MARGIN, ImagePreprocessor, resize_graph
from automl.tracks.image.snapshot import ImageSnapshot
from automl.tracks.track import FileFacts
from tests.letterboxes import Preprocessing, published_preprocessing
from tests.unit.test_image_dataset import GOLDEN, SNAPSHOT

SIZES = (4, 7, 16)
SIDES = st.integers(1, 70)


@cache
def builder(size: int, resize: Resize = Resize.LETTERBOX) -> ImagePreprocessor:
    return ImagePreprocessor(resize_graph(size, resize).SerializeToString(deterministic=True))


@cache
def published(size: int) -> Preprocessing:
    graph = resize_graph(size, Resize.LETTERBOX).SerializeToString(deterministic=True)
    return published_preprocessing(graph, size)


def pixels_of(n: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng([n, height, width])
    return rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@settings(max_examples=150, deadline=None)
@given(size=st.sampled_from(SIZES), n=st.integers(1, 3), height=SIDES, width=SIDES)
@example(size=16, n=1, height=1, width=1)
@example(size=16, n=2, height=1, width=5000)
@example(size=16, n=2, height=5000, width=1)
@example(size=7, n=1, height=1201, width=803)
@example(size=16, n=1, height=16, width=15)
def test_the_published_file_makes_the_snapshots_tensors_bit_for_bit(
    size: int, n: int, height: int, width: int
) -> None:
    pixels = pixels_of(n, height, width)

    stored = np.concatenate([builder(size)(image[None]) for image in pixels])
    computed = published(size)(pixels)

    assert stored.dtype == np.uint8
    assert stored.shape == (n, size, size, 3)
    np.testing.assert_array_equal(computed, stored)


@settings(max_examples=150, deadline=None)
@given(size=st.sampled_from(SIZES), height=SIDES, width=SIDES)
@example(size=16, height=1, width=100_000)
@example(size=16, height=100_000, width=3)
def test_the_longer_side_fills_the_square_and_the_aspect_is_kept(
    size: int, height: int, width: int
) -> None:
    white = np.full((1, height, width, 3), 255, np.uint8)

    (boxed,) = builder(size)(white)

    inside = (boxed == 255).all(axis=2)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    longest = max(height, width)
    assert len(rows) == max(1, (2 * height * size + longest) // (2 * longest))
    assert len(columns) == max(1, (2 * width * size + longest) // (2 * longest))
    assert max(len(rows), len(columns)) == size
    assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert (boxed[~inside] == MARGIN).all()
    for found in (rows, columns):
        before, after = found[0], size - 1 - found[-1]
        assert after - before in {0, 1}  # in the middle


@pytest.mark.parametrize("side", [1, 5, 16, 40])
def test_a_square_is_what_stretching_makes_of_it(side: int) -> None:
    pixels = pixels_of(2, side, side)

    np.testing.assert_array_equal(builder(16)(pixels), builder(16, Resize.STRETCH)(pixels))


@pytest.mark.parametrize(("height", "width", "inside"), [(90, 60, (24, 16)), (10, 15, (16, 24))])
def test_an_image_is_scaled_as_stretching_scales_it(
    height: int, width: int, inside: tuple[int, int]
) -> None:
    pixels = pixels_of(1, height, width)
    graph = resize_graph(24)
    sizes = onnx.helper.make_tensor("resize_sizes", onnx.TensorProto.INT64, [2], inside)
    graph.graph.initializer[0].CopyFrom(sizes)
    graph.graph.output[0].type.tensor_type.shape.Clear()

    (boxed,) = builder(24)(pixels)

    (expected,) = ImagePreprocessor(graph.SerializeToString())(pixels)
    np.testing.assert_array_equal(boxed[:, 4:20] if height > width else boxed[4:20], expected)


def test_the_graph_is_valid_and_tells_its_size() -> None:
    model = onnx.shape_inference.infer_shapes(
        resize_graph(16, Resize.LETTERBOX), check_type=True, strict_mode=True, data_prop=True
    )

    onnx.checker.check_model(model, full_check=True)
    (output,) = model.graph.output
    assert [dim.dim_value for dim in output.type.tensor_type.shape.dim[1:]] == [16, 16, 3]


def test_equal_arguments_give_equal_graphs() -> None:
    graphs = {
        resize_graph(size, resize).SerializeToString(deterministic=True)
        for size in (8, 16)
        for resize in Resize
        for _ in range(2)
    }

    assert len(graphs) == 4


def test_a_version_fitted_on_other_shapes_does_not_fit() -> None:
    envelope = ImageSnapshot.open(GOLDEN, "pictures", SNAPSHOT).envelope
    facts = FileFacts(
        labels=envelope.classes, input={"resize": "letterbox", "size": envelope.image_size}
    )
    old = FileFacts(labels=envelope.classes, input={"size": envelope.image_size})

    assert list(misfits(envelope, facts)) == [
        "its images are resized by letterbox, the dataset's by stretch; "
        "data.resize: letterbox makes them equal"
    ]
    assert not list(misfits(envelope, old))


def test_images_of_a_folder_keep_their_aspect_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("path,label\nwide.png,a\nsquare.png,b\n")
    for name, width in {"wide.png": 16, "square.png": 8}.items():
        (tmp_path / name).write_bytes(encode_png(np.full((8, width, 3), 255, np.uint8)))

    images, _ = load_image_dataset(tmp_path / "rows.csv", tmp_path, resize="letterbox")

    assert images.shape == (2, 12, 12, 3)
    assert sorted(np.unique(images[0]).tolist()) == [MARGIN, 255]
    assert (images[1] == 255).all()
    with pytest.raises(ConfigError, match=r"resize is 'crop'\. Hint: use stretch or letterbox"):
        load_image_dataset(tmp_path / "rows.csv", tmp_path, resize="crop")
