"""A published image classifier, for whoever has pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automl.errors import DataError, ExportError
from automl.onnx import LABEL, PROBABILITIES
from automl.onnx.model import OnnxModel
from automl.tracks.image.resize import INPUT_NAME


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
        self._model = OnnxModel(source, threads)
        if not is_image_classifier(self._model.inputs, self._model.outputs):
            raise ExportError(
                f"{self._model.name} reads {list(self._model.inputs)} and computes "
                f"{sorted(self._model.outputs)}; an image classifier reads {INPUT_NAME} and "
                f"computes {LABEL} and {PROBABILITIES}."
            )
        self.labels, self.properties = self._model.labels, self._model.properties

    def predict(self, pixels: NDArray[np.uint8]) -> tuple[list[str], NDArray[np.float32]]:
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
        prediction = self._model.predict({INPUT_NAME: pixels})
        return list(prediction.chosen), prediction.values


def is_image_classifier(inputs: Sequence[str], outputs: Sequence[str]) -> bool:
    """Return whether a file with these inputs and outputs classifies images."""
    return list(inputs) == [INPUT_NAME] and {LABEL, PROBABILITIES} <= set(outputs)
