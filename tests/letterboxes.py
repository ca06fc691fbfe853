"""The preprocessing that is inside published files, run as the whole file is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from automl.morphism.architecture import Architecture, Node, Op
from automl.onnx import PROBABILITIES
from automl.tracks.image.onnx import build_onnx
from automl.tracks.image.resize import INPUT_NAME

Preprocessing: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

_MADE = "preprocess/resized"


def tiny_network(size: int, classes: int) -> tuple[Architecture, dict[str, np.ndarray]]:
    """Return a network of one convolution, and weights for it."""
    settings = {"channels": 4, "kernel": 3, "stride": 2, "groups": 1, "bias": 1}
    nodes = (
        Node(Op.INPUT),
        Node(Op.CONV, (0,), settings),
        Node(Op.RELU, (1,)),
        Node(Op.GLOBAL_POOL, (2,)),
        Node(Op.DENSE, (3,), {"units": classes}),
    )
    architecture, *_ = Architecture(size, 3, nodes).canonical()
    rng = np.random.default_rng(0)
    return architecture, {
        key: rng.normal(size=shape).astype(np.float32)
        for key, shape in architecture.weight_shapes().items()
    }


def published_preprocessing(graph: bytes, size: int) -> Preprocessing:
    """Return what a whole file with a preprocessing graph makes of images before its network.

    Args:
        graph: the preprocessing graph.
        size: of the images that it makes.
    """
    architecture, weights = tiny_network(size, 2)
    data = build_onnx(
        architecture, weights, (120.0,) * 3, (60.0,) * 3,
        preprocess=graph, labels=("a", "b"), metadata={},
    )  # fmt: skip
    return preprocessing_of(data)


def preprocessing_of(data: bytes) -> Preprocessing:
    """Return what a published file makes of images before its network; all of it is run."""
    model = onnx.load_model_from_string(data)
    made = onnx.helper.make_tensor_value_info(_MADE, onnx.TensorProto.UINT8, None)
    model.graph.output.append(made)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        images, probabilities = session.run([_MADE, PROBABILITIES], {INPUT_NAME: pixels})
        assert len(probabilities) == len(pixels)
        return np.asarray(images)

    return run
