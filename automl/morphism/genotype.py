"""The text of a graph: versioned JSON (docs/formats/genotype.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from automl.errors import DamagedDataError, NewerSchemaError
from automl.morphism.nodes import Node, Op

GENOTYPE_SCHEMA = 2  # the newest; a text has the oldest schema that knows its operations
_SINCE = {Op.RELU6: 2}  # operations that schema 1 does not know

_OPS = {str(op): op for op in Op}


def write_nodes(input_channels: int, input_size: int, nodes: Sequence[Node]) -> str:
    """Return the text of nodes in canonical order: keys sorted, no white space."""
    written = []
    for node in nodes:
        before, after = node.layer.text
        written.append(before + ",".join(map(str, node.inputs)) + after)
    image = f'"input":[{input_channels},{input_size},{input_size}]'
    schema = max(_SINCE.get(node.op, 1) for node in nodes)
    return f'{{{image},"nodes":[{",".join(written)}],"schema":{schema}}}'


def read_document(text: str) -> Mapping[str, Any]:
    """Return the JSON document of a genotype whose schema this version reads.

    Raises:
        NewerSchemaError: a newer version wrote it.
        DamagedDataError: it is no JSON object with a schema.
    """
    try:
        document: Mapping[str, Any] = json.loads(text)
        schema = int(document["schema"])
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(text, error) from error
    if schema > GENOTYPE_SCHEMA:
        raise NewerSchemaError(
            f"The genotype has schema {schema}; this version reads up to {GENOTYPE_SCHEMA}.",
            "upgrade the platform",
        )
    return document


def read_nodes(document: Mapping[str, Any]) -> tuple[int, int, tuple[Node, ...]]:
    """Return the channels and the size of the image, and the nodes as they are written.

    Raises:
        KeyError, TypeError, ValueError: the document is no graph of layers.
    """
    channels, height, width = document["input"]
    if height != width:
        raise ValueError(f"the input is {height} x {width}, not square")
    nodes = [
        Node(_OPS[op], tuple(inputs), dict(attributes))
        for op, inputs, attributes in document["nodes"]
    ]
    return int(channels), int(height), tuple(nodes)


def damaged(text: str, error: Exception) -> DamagedDataError:
    """Return the error about a text that is not a genotype."""
    return DamagedDataError(f"{text[:80]!r} is not a genotype: {error}", "restore the study's log")
