"""Direct emission of a trained architecture as one ONNX file (docs/adr/0002)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from automl.errors import ExportError, Problem
from automl.morphism.architecture import BATCH_NORM_EPS, Architecture, Node, Op, Shape
from automl.onnx import LABEL, OPSET, PROBABILITIES
from automl.onnx.graph import GraphWriter
from automl.tracks.image.resize import INPUT_NAME

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
    _check_fit(architecture, weights, labels, (mean, std))
    graph = GraphWriter()
    resized = _splice(graph, preprocess, architecture.input_size)
    image = _normalise(graph, resized, mean, std)
    logits = _network(graph, architecture, weights, image)
    _heads(graph, logits, labels)
    return _to_bytes(graph, labels, metadata)


def _to_bytes(graph: GraphWriter, labels: Sequence[str], metadata: Mapping[str, str]) -> bytes:
    from onnx import TensorProto, helper

    return graph.to_bytes(
        "classifier",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor_value_info(LABEL, TensorProto.STRING, ["N"]),
            helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["N", len(labels)]),
        ],
        {**metadata, "labels": json.dumps(list(labels))},
    )


def _splice(graph: GraphWriter, preprocess: bytes, size: int) -> str:
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
    source = model.graph
    produced = [dim.dim_value for dim in source.output[0].type.tensor_type.shape.dim[1:]]
    if produced != [size, size, 3]:
        raise ExportError(
            f"The preprocessing graph makes {produced}, the network reads {[size, size, 3]}."
        )
    names = {"": "", source.input[0].name: INPUT_NAME}
    for tensor in source.initializer:
        tensor.name = _PREPROCESS + tensor.name
        graph.initializers.append(tensor)
    for node in source.node:
        node.name = _PREPROCESS + node.name
        node.input[:] = [names.get(name, _PREPROCESS + name) for name in node.input]
        node.output[:] = [names.get(name, _PREPROCESS + name) for name in node.output]
        graph.nodes.append(node)
    return _PREPROCESS + str(source.output[0].name)


def _normalise(
    graph: GraphWriter, resized: str, mean: Sequence[float], std: Sequence[float]
) -> str:
    from onnx import TensorProto

    channels = graph.node("Transpose", [resized], "0.channels_first", perm=[0, 3, 1, 2])
    values = graph.node("Cast", [channels], "0.float", to=TensorProto.FLOAT)
    centred = graph.node("Sub", [values, graph.constant("0.mean", _per_channel(mean))], "0.centred")
    return graph.node("Div", [centred, graph.constant("0.std", _per_channel(std))], "0")


def _per_channel(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1)


def _network(
    graph: GraphWriter, architecture: Architecture, weights: Mapping[str, np.ndarray], image: str
) -> str:
    names = {
        key: graph.constant(key, np.asarray(weights[key], dtype=np.float32))
        for key in architecture.weight_shapes()
    }
    outputs = [image]
    for index, node in enumerate(architecture.nodes[1:], start=1):
        inputs = [outputs[source] for source in node.inputs]
        outputs.append(_layer(graph, index, node, inputs, names))
    return outputs[-1]


def _layer(
    graph: GraphWriter, index: int, node: Node, inputs: list[str], weights: Mapping[str, str]
) -> str:
    """Append what one node of the architecture computes; return the name of its output."""
    out = str(index)
    if node.op is Op.DROPOUT:
        return inputs[0]
    if node.op is Op.ADD:
        return _sum(graph, inputs, out)
    if node.op is Op.GLOBAL_POOL:
        axes = graph.constant(f"{out}.axes", np.array([2, 3], dtype=np.int64))
        return graph.node("ReduceMean", [*inputs, axes], out, keepdims=0)
    if node.op is Op.RELU6:
        least = graph.constant(f"{out}.min", np.array(0, np.float32))
        most = graph.constant(f"{out}.max", np.array(6, np.float32))
        return graph.node("Clip", [*inputs, least, most], out)
    stored = [f"{out}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    read = inputs + [weights[key] for key in stored if key in weights]
    return graph.node(_OPERATORS[node.op], read, out, **_attributes(node))


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


def _sum(graph: GraphWriter, inputs: list[str], out: str) -> str:
    """Add from left to right, as the network does."""
    total = inputs[0]
    for place, name in enumerate(inputs[1:], start=1):
        target = out if place == len(inputs) - 1 else f"{out}.sum{place}"
        total = graph.node("Add", [total, name], target)
    return total


def _heads(graph: GraphWriter, logits: str, labels: Sequence[str]) -> None:
    probabilities = graph.node("Softmax", [logits], PROBABILITIES, axis=1)
    best = graph.node("ArgMax", [probabilities], "label.index", axis=1, keepdims=0)
    names = graph.constant("labels", np.array(list(labels), dtype=object))
    graph.node("Gather", [names, best], LABEL, axis=0)


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
