"""Arrays and a JSON state in one safetensors file that notices when it is damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from automl.errors import NewerSchemaError

NOT_READABLE = (ValueError, TypeError, KeyError, IndexError, SafetensorError)


def pack(
    kind: str, schema: int, state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> bytes:
    """Return the file's bytes; equal contents give equal bytes.

    Args:
        kind: what the file is; names its entry in the header's metadata.
        schema: version of the kind's format.
        state: JSON.
        tensors: arrays by name.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    document = {"schema": schema, "sha256": _digest(state, arrays), "state": state}
    return bytes(save_tensors(arrays, {kind: json.dumps(document, sort_keys=True)}))


def unpack(
    kind: str, schema: int, data: bytes
) -> tuple[Mapping[str, Any], Mapping[str, np.ndarray]]:
    """Return the state and the arrays that `pack` wrote.

    Args:
        kind: what the file is.
        schema: the newest version of its format that the caller reads.
        data: the file's bytes.

    Raises:
        NewerSchemaError: a newer version wrote it.
        ValueError, TypeError, KeyError, IndexError, SafetensorError: the bytes are not what was
            written; see `NOT_READABLE`.
    """
    document = _document(kind, data)
    found = int(document["schema"])
    if found > schema:
        raise NewerSchemaError(
            f"The {kind} has schema {found}; this version reads up to {schema}.",
            "upgrade the platform",
        )
    state, tensors = document["state"], load_tensors(data)
    if document["sha256"] != _digest(state, tensors):
        raise ValueError("its digest does not match")
    return state, tensors


def _document(kind: str, data: bytes) -> Mapping[str, Any]:
    """Return our document from the header: 8 bytes of length, then JSON with `__metadata__`."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise ValueError("it is cut short")
    header = json.loads(data[8 : 8 + size])
    document = json.loads(header["__metadata__"][kind])
    if not isinstance(document, dict):
        raise TypeError("its metadata is not an object")
    return document


def _digest(state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of the state and of all arrays with their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
