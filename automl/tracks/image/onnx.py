"""Direct emission of a trained architecture as one ONNX file (docs/adr/0002)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.errors import ExportError, Problem
from automl.morphism.architecture import BATCH_NORM_EPS, Architecture, Node, Op, Shape
from automl.onnx import IR_VERSION, LABEL, OPSET, PROBABILITIES
from automl.tracks.image.resize import INPUT_NAME

if TYPE_CHECKING:
    import onnx

_PREPROCESS = "preprocess/"

_OPERATORS = {
    Op.CONV: "Conv",
    Op.BATCH_NORM: "BatchNormalization",
    Op.RELU: "Relu",
    Op.MAX_POOL: "MaxPool",
    Op.AVG_POOL: "AveragePool",
    Op.FLATTEN: "Flatten",
    Op.DENSE: "Gemm",
    Op.CONCAT: "Concat",
}


def build_onnx(  # noqa: PLR0913 - the file is a function of exactly these values
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    preprocess: bytes,
    labels: Sequence[str],
    metadata: Mapping[str, str],
) -> bytes:
    """Return the bytes of an ONNX file that classifies raw images; equal arguments, equal bytes.

    Input `image` is uint8 `[N, H, W, 3]`; outputs are `label`, string `[N]`, and `probabilities`,
    float32 `[N, K]`, whose columns follow the metadata property `labels`.

    Args:
        architecture: the network; its weights' keys carry the node indices.
        weights: float32 arrays as `architecture.weight_shapes()` names them.
        mean: mean of each channel's 0 to 255 values.
        std: their standard deviations.
        preprocess: serialised graph, `image` uint8 `[N, H, W, 3]` to uint8 `[N, S, S, 3]`.
        labels: the classes in the order of the logits.
        metadata: further metadata properties: `study`, `version`, `snapshot`.

    Raises:
        ExportError: weights, labels or preprocessing do not fit the architecture.
    """
    import onnx
    from onnx import TensorProto, helper

    _check_fit(architecture, weights, labels, (mean, std))
    emitter = _Emitter()
    resized = _splice(emitter, preprocess, architecture.input_size)
    image = _normalise(emitter, resized, mean, std)
    logits = _network(emitter, architecture, weights, image)
    _heads(emitter, logits, labels)
    graph = helper.make_graph(
        emitter.nodes,
        "classifier",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor_value_info(LABEL, TensorProto.STRING, ["N"]),
            helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["N", len(labels)]),
        ],
        emitter.initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="automl"
    )
    model.ir_version = IR_VERSION
    properties = {**metadata, "labels": json.dumps(list(labels))}
    helper.set_model_props(model, dict(sorted(properties.items())))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


class _Emitter:
    """Collects nodes and initializers under unique names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node of one output and return the output's name."""
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: np.ndarray) -> str:
        """Append an initializer and return its name."""
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name


def _splice(emitter: _Emitter, preprocess: bytes, size: int) -> str:
    """Put the preprocessing graph's nodes first, names prefixed; return its output's name."""
    from google.protobuf.message import DecodeError
    from onnx import load_model_from_string

    try:
        model = load_model_from_string(preprocess)
    except DecodeError as error:
        raise ExportError(f"The preprocessing graph is no ONNX model: {error}.") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise ExportError(
            f"The preprocessing graph has opsets {opsets}, the network has {OPSET}.",
            "prepare the dataset again with this version of the platform",
        )
    graph = model.graph
    produced = [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim[1:]]
    if produced != [size, size, 3]:
        raise ExportError(
            f"The preprocessing graph makes {produced}, the network reads {[size, size, 3]}."
        )
    names = {"": "", graph.input[0].name: INPUT_NAME}
    for tensor in graph.initializer:
        tensor.name = _PREPROCESS + tensor.name
        emitter.initializers.append(tensor)
    for node in graph.node:
        node.name = _PREPROCESS + node.name
        node.input[:] = [names.get(name, _PREPROCESS + name) for name in node.input]
        node.output[:] = [names.get(name, _PREPROCESS + name) for name in node.output]
        emitter.nodes.append(node)
    return _PREPROCESS + str(graph.output[0].name)


def _normalise(emitter: _Emitter, resized: str, mean: Sequence[float], std: Sequence[float]) -> str:
    from onnx import TensorProto

    channels = emitter.node("Transpose", [resized], "0.channels_first", perm=[0, 3, 1, 2])
    values = emitter.node("Cast", [channels], "0.float", to=TensorProto.FLOAT)
    centred = emitter.node(
        "Sub", [values, emitter.constant("0.mean", _per_channel(mean))], "0.centred"
    )
    return emitter.node("Div", [centred, emitter.constant("0.std", _per_channel(std))], "0")


def _per_channel(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1)


def _network(
    emitter: _Emitter, architecture: Architecture, weights: Mapping[str, np.ndarray], image: str
) -> str:
    names = {
        key: emitter.constant(key, np.asarray(weights[key], dtype=np.float32))
        for key in architecture.weight_shapes()
    }
    outputs = [image]
    for index, node in enumerate(architecture.nodes[1:], start=1):
        inputs = [outputs[source] for source in node.inputs]
        outputs.append(_layer(emitter, index, node, inputs, names))
    return outputs[-1]


def _layer(
    emitter: _Emitter, index: int, node: Node, inputs: list[str], weights: Mapping[str, str]
) -> str:
    """Append what one node of the architecture computes; return the name of its output."""
    out = str(index)
    if node.op is Op.DROPOUT:
        return inputs[0]
    if node.op is Op.ADD:
        return _sum(emitter, inputs, out)
    if node.op is Op.GLOBAL_POOL:
        axes = emitter.constant(f"{out}.axes", np.array([2, 3], dtype=np.int64))
        return emitter.node("ReduceMean", [*inputs, axes], out, keepdims=0)
    if node.op is Op.RELU6:
        least = emitter.constant(f"{out}.min", np.array(0, np.float32))
        most = emitter.constant(f"{out}.max", np.array(6, np.float32))
        return emitter.node("Clip", [*inputs, least, most], out)
    stored = [f"{out}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    read = inputs + [weights[key] for key in stored if key in weights]
    return emitter.node(_OPERATORS[node.op], read, out, **_attributes(node))


def _attributes(node: Node) -> dict[str, Any]:
    match node.op:
        case Op.CONV:
            padding = node.integer("kernel") // 2
            return {**_window(node), "pads": [padding] * 4, "group": node.integer("groups")}
        case Op.MAX_POOL | Op.AVG_POOL:
            return _window(node)
        case Op.BATCH_NORM:
            return {"epsilon": BATCH_NORM_EPS}
        case Op.DENSE:
            return {"transB": 1}
        case Op.FLATTEN | Op.CONCAT:
            return {"axis": 1}
    return {}


def _window(node: Node) -> dict[str, list[int]]:
    kernel, stride = node.integer("kernel"), node.integer("stride")
    return {"kernel_shape": [kernel, kernel], "strides": [stride, stride]}


def _sum(emitter: _Emitter, inputs: list[str], out: str) -> str:
    """Add from left to right, as the network does."""
    total = inputs[0]
    for place, name in enumerate(inputs[1:], start=1):
        target = out if place == len(inputs) - 1 else f"{out}.sum{place}"
        total = emitter.node("Add", [total, name], target)
    return total


def _heads(emitter: _Emitter, logits: str, labels: Sequence[str]) -> None:
    probabilities = emitter.node("Softmax", [logits], PROBABILITIES, axis=1)
    best = emitter.node("ArgMax", [probabilities], "label.index", axis=1, keepdims=0)
    names = emitter.constant("labels", np.array(list(labels), dtype=object))
    emitter.node("Gather", [names, best], LABEL, axis=0)


def _check_fit(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    labels: Sequence[str],
    normalization: tuple[Sequence[float], Sequence[float]],
) -> None:
    expected: dict[str, Shape] = architecture.weight_shapes()
    problems = [
        Problem(
            key, f"shape {np.shape(weights[key]) if key in weights else 'missing'}, not {shape}"
        )
        for key, shape in expected.items()
        if key not in weights or np.shape(weights[key]) != shape
    ]
    problems += [Problem(key, "no node has it") for key in weights if key not in expected]
    problems += [
        Problem(key, "it holds a value that is not finite")
        for key in expected
        if key in weights and not np.isfinite(weights[key]).all()
    ]
    if architecture.input_channels != 3 or any(len(values) != 3 for values in normalization):
        problems.append(Problem("normalization", "the image has three channels"))
    elif not min(normalization[1]) > 0:
        problems.append(Problem("normalization", f"a deviation in {normalization[1]} is not > 0"))
    if len(labels) != architecture.classes or len(set(labels)) != len(labels):
        found = f"{len(labels)} labels, {len(set(labels))} of them different"
        problems.append(Problem("labels", f"{found}, for {architecture.classes} logits"))
    if problems:
        raise ExportError("The weights do not fit the architecture.", problems=problems)
