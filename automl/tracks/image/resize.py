"""The resize that both the snapshot's builders and the exported file run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from automl.domain.specification import Resize
from automl.onnx import IR_VERSION, OPSET

if TYPE_CHECKING:
    import onnx
    import onnxruntime

INPUT_NAME = "image"
OUTPUT_NAME = "resized"
MARGIN = 114  # of a letterbox: about the mean of photographs, 115 in ImageNet

_Operators: TypeAlias = "tuple[list[onnx.NodeProto], list[onnx.TensorProto]]"


def resize_graph(size: int, resize: Resize = Resize.STRETCH) -> onnx.ModelProto:
    """Return the graph that makes images of any shape `size` times `size` pixels.

    Input `image` is uint8 `[N, H, W, 3]`, output `resized` uint8 `[N, size, size, 3]`. Linear
    interpolation, antialiased when it shrinks. The serialised graph is a function of the arguments
    only.

    Args:
        size: side of the square in pixels.
        resize: `stretch` to the square, or `letterbox`: the aspect is kept, the longer side is
            `size`, the shorter one at least 1 and in the middle between two margins of `MARGIN`.
    """
    from onnx import TensorProto, helper

    nodes, constants = _stretch(size) if resize is Resize.STRETCH else _letterbox(size)
    graph = helper.make_graph(
        nodes,
        "preprocess",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, ["N", size, size, 3])],
        constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="automl"
    )
    model.ir_version = IR_VERSION
    return model


def _stretch(size: int) -> _Operators:
    return [_resized("resize_sizes", OUTPUT_NAME)], [_integers("resize_sizes", size, size)]


def _letterbox(size: int) -> _Operators:
    """Return what scales images into the square and fills the rest of it.

    All sizes are computed in integers, so that they are the same wherever the graph runs. A side is
    scaled to max(1, floor(side * size / longest + 1/2)).
    """
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Shape", [INPUT_NAME], ["sides"], name="sides", start=1, end=3),
        helper.make_node("ReduceMax", ["sides"], ["longest"], name="longest", keepdims=1),
        _node("Mul", "sides", "twice_size", "twice_scaled"),
        _node("Add", "twice_scaled", "longest", "raised"),
        _node("Mul", "longest", "two", "twice_longest"),
        _node("Div", "raised", "twice_longest", "rounded"),
        _node("Max", "rounded", "one", "resize_sizes"),
        _resized("resize_sizes", "scaled"),
        _node("Sub", "square", "resize_sizes", "margins"),
        _node("Div", "margins", "two", "before"),
        _node("Sub", "margins", "before", "after"),
        helper.make_node("Concat", ["before", "after"], ["pads"], name="pads", axis=0),
        helper.make_node("Pad", ["scaled", "pads", "margin", "axes"], ["padded"], name="padded"),
        # it moves nothing, and tells the size, which is known nowhere else in the graph
        helper.make_node("Reshape", ["padded", "shape"], [OUTPUT_NAME], name="reshape"),
    ]
    constants = [
        _integers("twice_size", 2 * size),
        _integers("two", 2),
        _integers("one", 1),
        _integers("square", size, size),
        helper.make_tensor("margin", TensorProto.UINT8, [], [MARGIN]),
        _integers("axes", 1, 2),
        _integers("shape", 0, size, size, 3),  # 0: as many images as there are
    ]
    return nodes, constants


def _resized(sizes: str, output: str) -> onnx.NodeProto:
    from onnx import helper

    return helper.make_node(
        "Resize",
        [INPUT_NAME, "", "", sizes],
        [output],
        name="resize",
        mode="linear",
        antialias=1,
        axes=[1, 2],
        coordinate_transformation_mode="half_pixel",
    )


def _node(op: str, first: str, second: str, output: str) -> onnx.NodeProto:
    from onnx import helper

    return helper.make_node(op, [first, second], [output], name=output)


def _integers(name: str, *values: int) -> onnx.TensorProto:
    from onnx import TensorProto, helper

    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


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
