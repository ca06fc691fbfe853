"""Writing of ONNX files, node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from automl.onnx import IR_VERSION, OPSET

if TYPE_CHECKING:
    import onnx


class GraphWriter:
    """Graph under construction, whose nodes and initializers have unique names.

    Attributes:
        nodes: so far, in an order in which they can be computed.
        initializers: so far.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        """Append a node, which is named as its first output, and return that name."""
        from onnx import helper

        name = outputs[0]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=name, **attributes))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        """Append an initializer and return its name."""
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def to_bytes(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        properties: Mapping[str, str],
    ) -> bytes:
        """Return the file; equal graphs and arguments give equal bytes.

        Args:
            name: of the graph.
            inputs: names, types and shapes of its inputs.
            outputs: those of its outputs.
            properties: metadata of the file.

        Raises:
            onnx.checker.ValidationError: the graph is not valid.
        """
        from onnx import checker, helper

        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="automl"
        )
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(sorted(properties.items())))
        checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))
