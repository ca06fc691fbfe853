"""What a training leaves behind for others to read, as bytes (docs/formats/trial-files.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from automl.errors import DamagedDataError, NewerSchemaError
from automl.training.checkpoint import EpochResult
from automl.training.tensor_file import NOT_READABLE, pack, unpack

WEIGHTS_SCHEMA = 1
CURVE_SCHEMA = 2
_WEIGHTS = "weights"
_UPGRADE = "upgrade the platform"


def weights_to_bytes(weights: Mapping[str, np.ndarray]) -> bytes:
    """Return weights in their stored format; equal weights give equal bytes."""
    return pack(_WEIGHTS, WEIGHTS_SCHEMA, {}, weights)


def weights_from_bytes(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Return the weights that `weights_to_bytes` wrote.

    Args:
        data: the stored bytes.
        where: their key, for messages.

    Raises:
        NewerSchemaError: a newer version wrote them.
        DamagedDataError: they are not what was written.
    """
    try:
        _, weights = unpack(_WEIGHTS, WEIGHTS_SCHEMA, data)
    except NOT_READABLE as error:
        raise DamagedDataError(
            f"{where} holds no weights: {error}.",
            "restore it from a backup of the home; see docs/runbook.md",
        ) from error
    except NewerSchemaError as error:
        raise NewerSchemaError(f"{where}: {error.message}", _UPGRADE) from error
    return dict(weights)


def curve_to_bytes(curve: Sequence[EpochResult]) -> bytes:
    """Return a learning curve as JSON lines, the first of which holds the others' checksum."""
    lines = "".join(json.dumps(entry.to_json()) + "\n" for entry in curve).encode()
    header = {"schema": CURVE_SCHEMA, "sha256": hashlib.sha256(lines).hexdigest()}
    return json.dumps(header).encode() + b"\n" + lines


def curve_from_bytes(data: bytes, where: str) -> list[EpochResult]:
    """Return the learning curve that `curve_to_bytes` wrote.

    Args:
        data: the stored bytes.
        where: their key, for messages.

    Raises:
        NewerSchemaError: a newer version wrote it.
        DamagedDataError: it is not what was written.
    """
    first, _, lines = data.partition(b"\n")
    try:
        header = json.loads(first)
        schema = int(header["schema"])
        if schema <= CURVE_SCHEMA:
            return _parse_curve(lines, header["sha256"])
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedDataError(
            f"{where} is no learning curve: {error}.",
            "delete it, and children train in full, or restore it from a backup of the home",
        ) from error
    raise NewerSchemaError(
        f"{where} has schema {schema}; this version reads up to {CURVE_SCHEMA}.", _UPGRADE
    )


def _parse_curve(lines: bytes, sha256: str) -> list[EpochResult]:
    if hashlib.sha256(lines).hexdigest() != sha256:
        raise ValueError("its checksum does not match")
    return [EpochResult.from_json(json.loads(line)) for line in lines.splitlines()]
