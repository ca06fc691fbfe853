"""A published file, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from automl.errors import DataError, ExportError
from automl.onnx import LABEL, PROBABILITIES, VALUE

if TYPE_CHECKING:
    import onnxruntime


class Prediction(NamedTuple):
    """Outputs of a file for some rows.

    Attributes:
        values: probabilities, float32 `[N, K]`, or values, float32 `[N, 1]`.
        chosen: the file's label of each row; empty for values.
    """

    values: NDArray[np.float32]
    chosen: tuple[str, ...]


class OnnxModel:
    """Predicts with one session.

    Attributes:
        name: names the file in errors.
        inputs: names of its inputs, in their order.
        outputs: names of its outputs, in their order.
        properties: its metadata properties.
        labels: the classes in the order of the probabilities' columns; empty for values.

    Args:
        source: the file's bytes, or its path.
        threads: threads of one operator.

    Raises:
        ExportError: it is no ONNX file, or it classifies and does not say what.
    """

    def __init__(self, source: bytes | str | Path, threads: int = 1) -> None:
        self.name = "the given bytes" if isinstance(source, bytes) else str(source)
        self._session = _open_session(source, self.name, threads)
        self.inputs = tuple(str(entry.name) for entry in self._session.get_inputs())
        self.outputs = tuple(str(entry.name) for entry in self._session.get_outputs())
        self.properties: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.labels = self._labels() if {LABEL, PROBABILITIES} <= set(self.outputs) else ()

    def predict(self, feed: Mapping[str, np.ndarray]) -> Prediction:
        """Return what the file computes.

        Args:
            feed: its inputs by name; the first axis counts rows, of which there is one at least.

        Raises:
            DataError: an input is missing or has another type or shape, or the file computes
                neither labels nor values.
        """
        arrays = {name: np.ascontiguousarray(array) for name, array in feed.items()}
        if not self.labels:
            (values,) = self._run([VALUE], arrays)
            return Prediction(np.asarray(values, dtype=np.float32), ())
        chosen, probabilities = self._run([LABEL, PROBABILITIES], arrays)
        labels = tuple(str(label) for label in chosen)
        return Prediction(np.asarray(probabilities, dtype=np.float32), labels)

    def _run(self, outputs: list[str], arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        from onnxruntime.capi import onnxruntime_pybind11_state as native

        given = {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
        if not all(array.size for array in arrays.values()):
            raise DataError(f"{self.name} cannot read {given}: an input is empty.")
        try:
            found: list[np.ndarray] = self._session.run(outputs, arrays)
        except (
            ValueError,  # an input is missing
            native.Fail,
            native.InvalidArgument,
            native.RuntimeException,
        ) as error:
            raise DataError(f"{self.name} cannot read {given}: {error}") from error
        return found

    def _labels(self) -> tuple[str, ...]:
        try:
            return tuple(str(label) for label in json.loads(self.properties["labels"]))
        except (KeyError, ValueError, TypeError) as error:
            raise ExportError(
                f"{self.name} has no JSON list as metadata property labels."
            ) from error


def _open_session(
    source: bytes | str | Path, name: str, threads: int
) -> onnxruntime.InferenceSession:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = source if isinstance(source, bytes) else str(source)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except (
        native.Fail,
        native.InvalidArgument,
        native.InvalidGraph,
        native.InvalidProtobuf,
        native.NoSuchFile,
        native.NotImplemented,
    ) as error:
        raise ExportError(
            f"ONNX Runtime cannot load {name}: {error}", "give a file that this platform wrote"
        ) from error
