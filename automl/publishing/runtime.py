"""A published file, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from automl.errors import DataError, ExportError
from automl.tracks.image.onnx import INPUT, LABEL, PROBABILITIES

Array = np.ndarray[Any, Any]


class OnnxClassifier:
    """Classifies raw images with one session.

    Attributes:
        labels: the classes in the order of the probabilities' columns.
        properties: the file's metadata properties.

    Args:
        source: the file's bytes, or its path.
        threads: threads of one operator.

    Raises:
        ExportError: it is no ONNX file, or none of an image classifier.
    """

    def __init__(self, source: bytes | str | Path, threads: int = 1) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as native

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = source if isinstance(source, bytes) else str(source)
        name = "the given bytes" if isinstance(source, bytes) else str(source)
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
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
        self.properties: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        inputs = [entry.name for entry in self._session.get_inputs()]
        outputs = {entry.name for entry in self._session.get_outputs()}
        if inputs != [INPUT] or not {LABEL, PROBABILITIES} <= outputs:
            raise ExportError(
                f"{name} reads {inputs} and computes {sorted(outputs)}; an image classifier reads "
                f"{INPUT} and computes {LABEL} and {PROBABILITIES}."
            )
        try:
            self.labels = tuple(str(label) for label in json.loads(self.properties["labels"]))
        except (KeyError, ValueError, TypeError) as error:
            raise ExportError(f"{name} has no JSON list as metadata property labels.") from error

    def predict(self, pixels: Array) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float32]]]:
        """Return the labels `[N]` and the probabilities, float32 `[N, K]`.

        Args:
            pixels: RGB images, uint8 `[N, H, W, 3]`, N, H and W at least 1.

        Raises:
            DataError: the pixels have another type or shape.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or not pixels.size:
            raise DataError(
                f"Images are {pixels.dtype} of shape {pixels.shape}, not uint8 [N, H, W, 3]."
            )
        labels, probabilities = self._session.run(
            [LABEL, PROBABILITIES], {INPUT: np.ascontiguousarray(pixels)}
        )
        return [str(label) for label in labels], np.asarray(probabilities, dtype=np.float32)
