"""The resize that both the snapshot's builders and the exported file run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from automl.onnx import IR_VERSION, OPSET

if TYPE_CHECKING:
    import onnx
    import onnxruntime

INPUT_NAME = "image"
OUTPUT_NAME = "resized"


def resize_graph(size: int) -> onnx.ModelProto:
    """Return the graph that stretches images to `size` times `size` pixels.

    Input `image` is uint8 `[N, H, W, 3]`, output `resized` uint8 `[N, size, size, 3]`. Linear
    interpolation, antialiased when it shrinks. The serialised graph is a function of `size` only.
    """
    from onnx import TensorProto, helper

    resize = helper.make_node(
        "Resize",
        [INPUT_NAME, "", "", "resize_sizes"],
        [OUTPUT_NAME],
        name="resize",
        mode="linear",
        antialias=1,
        axes=[1, 2],
        coordinate_transformation_mode="half_pixel",
    )
    graph = helper.make_graph(
        [resize],
        "preprocess",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor("resize_sizes", TensorProto.INT64, [2], [size, size])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="automl"
    )
    model.ir_version = IR_VERSION
    return model


class ImagePreprocessor:
    """Runs a preprocessing graph on the CPU; one ONNX Runtime session per thread."""

    def __init__(self, graph_bytes: bytes) -> None:
        self._graph_bytes = graph_bytes
        self._local = threading.local()

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 `[N, S, S, 3]` for uint8 `[N, H, W, 3]`, each image independent of N."""
        (resized,) = self._session().run([OUTPUT_NAME], {INPUT_NAME: pixels})
        return np.asarray(resized, dtype=np.uint8)

    def _session(self) -> onnxruntime.InferenceSession:
        session = getattr(self._local, "session", None)
        if session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(
                self._graph_bytes, options, providers=["CPUExecutionProvider"]
            )
            self._local.session = session
        return session
