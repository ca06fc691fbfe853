"""Small ONNX files for tests that care about what runs them."""

from __future__ import annotations

import json

import numpy as np
from onnx import GraphProto, TensorProto, helper

from automl.onnx import IR_VERSION, LABEL, OPSET, PROBABILITIES, VALUE


def sum_file(scale: float = 1.0) -> bytes:
    """Return a file that reads the columns `a` and `b`, `[N, 1]`, and computes scale · (a + b)."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Mul", ["sum", "scale"], [VALUE]),
    ]
    columns = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("a", "b")
    ]
    output = helper.make_tensor_value_info(VALUE, TensorProto.FLOAT, ["N", 1])
    constant = helper.make_tensor("scale", TensorProto.FLOAT, [1], [scale])
    return _bytes(helper.make_graph(nodes, "sum", columns, [output], [constant]))


def unlabelled_file() -> bytes:
    """Return a file that classifies and does not say what its labels are."""
    nodes = [
        helper.make_node("Softmax", ["a"], [PROBABILITIES], axis=1),
        helper.make_node("Identity", ["names"], [LABEL]),
    ]
    column = helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 2])
    outputs = [
        helper.make_tensor_value_info(LABEL, TensorProto.STRING, [1]),
        helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["N", 2]),
    ]
    names = helper.make_tensor("names", TensorProto.STRING, [1], np.array([b"yes"], object))
    return _bytes(helper.make_graph(nodes, "choice", [column], outputs, [names]))


def _bytes(graph: GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    helper.set_model_props(model, {"study": "sums", "notes": json.dumps([])})
    return bytes(model.SerializeToString())
