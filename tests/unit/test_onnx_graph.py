import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from automl.errors import DataError, ExportError, ParityError
from automl.morphism.architecture import Architecture, Node, Op
from automl.onnx.model import OnnxModel
from automl.publishing.manifest import Parity
from automl.publishing.parity import check_parity
from automl.tracks.image.onnx import build_onnx
from automl.tracks.image.resize import ImagePreprocessor, resize_graph
from automl.tracks.image.track import TRACK
from automl.training.inference import predict_probabilities
from automl.training.module import Normalization

SIZE = 16
LABELS = ("basil", "cress", 'rad"ish', "Möhre")
NORMALIZATION = Normalization((120.5, 99.25, 80.1), (60.2, 51.7, 70.9))
METADATA = {"study": "greens", "version": "3", "snapshot": "abc"}


def _conv(source: int, channels: int, **changes: int) -> Node:
    settings = {"channels": channels, "kernel": 3, "stride": 1, "groups": 1, "bias": 0}
    return Node(Op.CONV, (source,), {**settings, **changes})


def _every_op() -> Architecture:
    nodes = (
        Node(Op.INPUT),
        _conv(0, 8),
        Node(Op.BATCH_NORM, (1,)),
        Node(Op.RELU, (2,)),
        _conv(3, 8, groups=8, kernel=5, bias=1),
        Node(Op.ADD, (3, 4, 2)),
        Node(Op.MAX_POOL, (5,), {"kernel": 3, "stride": 2}),
        Node(Op.AVG_POOL, (5,), {"kernel": 3, "stride": 2}),
        Node(Op.CONCAT, (6, 7, 6)),
        _conv(8, 12, stride=2, groups=4, bias=1),
        Node(Op.GLOBAL_POOL, (9,)),
        Node(Op.FLATTEN, (9,)),
        Node(Op.CONCAT, (10, 11)),
        Node(Op.DROPOUT, (12,), {"rate": 0.4}),
        Node(Op.DENSE, (13,), {"units": 10}),
        Node(Op.BATCH_NORM, (14,)),
        Node(Op.RELU6, (15,)),
        Node(Op.DENSE, (16,), {"units": len(LABELS)}),
    )
    return Architecture(SIZE, 3, nodes).canonical()[0]


def _weights(architecture: Architecture) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    weights = {}
    for key, shape in architecture.weight_shapes().items():
        values = rng.normal(size=shape) / max(1.0, np.prod(shape[1:]) ** 0.5)
        positive = key.endswith("running_var")
        weights[key] = (0.5 + np.abs(values) if positive else values).astype(np.float32)
    return weights


def _build(architecture: Architecture, weights: dict[str, np.ndarray]) -> bytes:
    return build_onnx(
        architecture,
        weights,
        NORMALIZATION.mean,
        NORMALIZATION.std,
        preprocess=resize_graph(SIZE).SerializeToString(deterministic=True),
        labels=LABELS,
        metadata=METADATA,
    )


def _images(n: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng([n, height, width])
    return rng.integers(0, 256, size=(n, height, width, 3), dtype=np.uint8)


def _reference(architecture: Architecture, pixels: np.ndarray) -> np.ndarray:
    preprocess = ImagePreprocessor(resize_graph(SIZE).SerializeToString(deterministic=True))
    return predict_probabilities(
        architecture, _weights(architecture), NORMALIZATION, preprocess(pixels), 1
    )


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return _every_op()


@pytest.fixture(scope="module")
def model(architecture: Architecture) -> bytes:
    return _build(architecture, _weights(architecture))


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(("height", "width"), [(SIZE, SIZE), (37, 23), (9, 61), (1, 1)])
def test_the_file_computes_what_the_network_computes(
    architecture: Architecture, model: bytes, n: int, height: int, width: int
) -> None:
    pixels = _images(n, height, width)
    reference = _reference(architecture, pixels)

    probabilities, labels = OnnxModel(model).predict({"image": pixels})

    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, reference, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert labels == tuple(LABELS[index] for index in probabilities.argmax(axis=1))


def test_the_random_network_does_not_ignore_its_input(architecture: Architecture) -> None:
    assert np.ptp(_reference(architecture, _images(50, 20, 20)), axis=0).max() > 0.02


def test_the_signature_is_the_documented_one(model: bytes) -> None:
    loaded = onnx.load_model_from_string(model)
    onnx.checker.check_model(loaded, full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["N", "H", "W", 3])
    outputs = {entry.name: (entry.type, entry.shape) for entry in session.get_outputs()}
    assert outputs == {
        "label": ("tensor(string)", ["N"]),
        "probabilities": ("tensor(float)", ["N", len(LABELS)]),
    }
    properties = {entry.key: entry.value for entry in loaded.metadata_props}
    assert json.loads(properties.pop("labels")) == list(LABELS)
    assert properties == METADATA


def test_equal_arguments_give_equal_bytes(architecture: Architecture, model: bytes) -> None:
    weights = dict(reversed(_weights(architecture).items()))

    assert _build(architecture, weights) == model


def test_dropout_leaves_no_trace(model: bytes) -> None:
    ops = {node.op_type for node in onnx.load_model_from_string(model).graph.node}

    assert "Dropout" not in ops
    assert {"Resize", "Conv", "BatchNormalization", "Gemm", "Concat", "Add", "ReduceMean"} <= ops


def test_a_file_on_disk_is_loaded_too(model: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model)

    assert OnnxModel(path).labels == LABELS
    assert OnnxModel(str(path), threads=2).properties["study"] == "greens"


def test_weights_that_do_not_fit_are_named(architecture: Architecture) -> None:
    weights = _weights(architecture)
    conv, dense, norm = "1.weight", f"{len(architecture.nodes) - 1}.bias", "2.running_var"
    del weights[conv]
    weights[dense] = np.zeros(3, dtype=np.float32)
    weights[norm] = np.full_like(weights[norm], np.nan)

    with pytest.raises(ExportError) as caught:
        _build(architecture, weights)

    assert {problem.path for problem in caught.value.problems} == {conv, dense, norm}


def test_labels_must_be_as_many_as_logits(architecture: Architecture) -> None:
    with pytest.raises(ExportError, match="2 labels, 1 of them different, for 4 logits"):
        build_onnx(
            architecture,
            _weights(architecture),
            NORMALIZATION.mean,
            NORMALIZATION.std,
            preprocess=resize_graph(SIZE).SerializeToString(),
            labels=["a", "a"],
            metadata={},
        )


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        (
            resize_graph(8).SerializeToString(),
            r"makes \[8, 8, 3\], the network reads \[16, 16, 3\]",
        ),
        (b"\xff\xff\xff", "no ONNX model"),
    ],
)
def test_a_preprocessing_graph_that_does_not_fit_is_refused(
    architecture: Architecture, preprocess: bytes, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        build_onnx(
            architecture,
            _weights(architecture),
            NORMALIZATION.mean,
            NORMALIZATION.std,
            preprocess=preprocess,
            labels=LABELS,
            metadata={},
        )


def _parity(reference: np.ndarray, model: bytes, images: list[np.ndarray]) -> Parity:
    feeds = [{"image": image[None]} for image in images]
    return check_parity(reference, OnnxModel(model), feeds, TRACK.tolerance)


def test_parity_holds_on_images_of_mixed_sizes(architecture: Architecture, model: bytes) -> None:
    images = [_images(1, *size)[0] for size in [(20, 20), (20, 20), (31, 17), (20, 20)]]
    reference = np.concatenate([_reference(architecture, image[None]) for image in images])

    parity = _parity(reference, model, images)

    assert parity.ok
    assert (parity.rows, parity.label_mismatches) == (4, 0)
    assert parity.max_abs_diff <= 1e-5


def test_parity_fails_on_a_larger_difference(architecture: Architecture, model: bytes) -> None:
    images = list(_images(3, 20, 20))
    reference = _reference(architecture, np.stack(images))
    reference[1, 0] += 3e-4

    parity = _parity(reference, model, images)

    assert not parity.ok
    assert parity.max_abs_diff == pytest.approx(3e-4, rel=0.05)


@pytest.mark.parametrize(("gap", "mismatches"), [(1e-4, 0), (3e-4, 1)])
def test_a_label_may_differ_only_where_the_network_hardly_decides(
    model: bytes, gap: float, mismatches: int
) -> None:
    images = list(_images(1, 20, 20))
    reference = OnnxModel(model).predict({"image": np.stack(images)}).values
    best, worst = reference[0].argmax(), reference[0].argmin()
    reference[0, worst] = reference[0, best] + gap

    assert _parity(reference, model, images).label_mismatches == mismatches


def test_parity_of_nothing_is_refused(model: bytes) -> None:
    with pytest.raises(ParityError, match="0 rows"):
        _parity(np.zeros((0, 4)), model, [])


def test_parity_with_probabilities_that_are_not_finite_is_refused(model: bytes) -> None:
    with pytest.raises(ParityError, match="not finite"):
        _parity(np.full((1, 4), np.nan), model, list(_images(1, 5, 5)))


def test_bytes_that_are_no_onnx_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot load the given bytes"):
        OnnxModel(b"not an onnx file")
    with pytest.raises(ExportError, match=r"missing\.onnx"):
        OnnxModel(tmp_path / "missing.onnx")


def test_the_track_recognises_its_files_and_no_others(model: bytes) -> None:
    own, other = OnnxModel(model), OnnxModel(resize_graph(8).SerializeToString())

    assert TRACK.recognises(own.inputs, own.outputs)
    assert not TRACK.recognises(other.inputs, other.outputs)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 4, 4, 3), dtype=np.float32),
        np.zeros((4, 4, 3), dtype=np.uint8),
        np.zeros((1, 4, 4, 4), dtype=np.uint8),
        np.zeros((0, 4, 4, 3), dtype=np.uint8),
    ],
)
def test_pixels_of_another_form_are_refused(model: bytes, pixels: np.ndarray) -> None:
    with pytest.raises(
        DataError, match=f"cannot read .*{pixels.dtype} {re.escape(str(pixels.shape))}"
    ):
        OnnxModel(model).predict({"image": pixels})
