"""Rows of any inputs, stored with a version to verify it later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from automl.errors import DamagedDataError, ExportError
from automl.tracks.track import Feed, Values

_INPUT, _VALUES = "input.", "predictions"


def read_tensors(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a safetensors file by their names.

    Raises:
        DamagedDataError: it is no such file.
    """
    try:
        return load(data)
    except SafetensorError as error:
        raise DamagedDataError(f"It is no file of tensors: {error}") from error


class FeedSamples:
    """Format of rows whose inputs have the same shapes: a safetensors file with a tensor each."""

    def pack(self, feeds: Sequence[Feed], values: Values) -> bytes:
        """Return rows with their predictions; equal arguments give equal bytes.

        Args:
            feeds: one row each.
            values: the predictions, `[N, K]` or `[N, 1]`.

        Raises:
            ExportError: there are none, or not as many of both.
        """
        if not len(feeds) or len(feeds) != len(values):
            raise ExportError(f"There are {len(feeds)} rows for {len(values)} predictions.")
        rows = {_INPUT + name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        return save({**rows, _VALUES: np.ascontiguousarray(values)})

    def unpack(self, data: bytes) -> tuple[list[Feed], Values]:
        """Return the rows and their predictions.

        Raises:
            DamagedDataError: it is no such file.
        """
        try:
            arrays = read_tensors(data)
            values = arrays.pop(_VALUES)
        except (DamagedDataError, KeyError) as error:
            raise DamagedDataError(
                f"The stored samples cannot be read: {error}", "publish a new version"
            ) from error
        named = {name.removeprefix(_INPUT): array for name, array in arrays.items()}
        return [{name: named[name][[row]] for name in named} for row in range(len(values))], values
