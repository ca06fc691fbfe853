"""Weights as bytes (docs/formats/trial-files.md)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from automl.errors import DamagedDataError, NewerSchemaError
from automl.training.tensor_file import NOT_READABLE, pack, unpack

WEIGHTS_SCHEMA = 1
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
