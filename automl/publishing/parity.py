"""Does the exported file say what the network says?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from automl.errors import ParityError
from automl.publishing.manifest import Parity
from automl.tracks.image.classifier import OnnxClassifier

MAX_ABS_DIFF = 1e-4
MIN_GAP = 2e-4
_BATCH_ROWS = 32

Array = np.ndarray[Any, Any]


def check_parity(reference: Array, classifier: OnnxClassifier, rows: Sequence[Array]) -> Parity:
    """Compare the file with the network on raw images.

    Args:
        reference: the network's probabilities, float32 `[N, K]`: evaluation mode, on the CPU.
        classifier: the exported file.
        rows: the N images, uint8 `[H, W, 3]` each, of any sizes.

    Raises:
        ParityError: there is nothing to compare, or probabilities are not finite.
    """
    if not len(rows) or reference.shape != (len(rows), len(classifier.labels)):
        raise ParityError(
            f"Reference probabilities have shape {reference.shape}; there are {len(rows)} images "
            f"and {len(classifier.labels)} labels."
        )
    predictions = [classifier.predict(batch) for batch in _batches(rows)]
    labels = [label for found, _ in predictions for label in found]
    probabilities = np.concatenate([found for _, found in predictions])
    if not (np.isfinite(probabilities).all() and np.isfinite(reference).all()):
        raise ParityError(
            "A probability is not finite.", "train again; the network's activations overflow"
        )
    difference = float(np.abs(probabilities.astype(np.float64) - reference).max())
    mismatches = _mismatches(reference, labels, classifier.labels)
    return Parity(
        rows=len(rows),
        max_abs_diff=difference,
        label_mismatches=mismatches,
        ok=difference <= MAX_ABS_DIFF and mismatches == 0,
    )


def _mismatches(reference: Array, labels: Sequence[str], known: Sequence[str]) -> int:
    expected = np.array(known, dtype=object)[reference.argmax(axis=1)]
    ordered = np.sort(reference.astype(np.float64), axis=1)
    gap = ordered[:, -1] - ordered[:, -2] if len(known) > 1 else np.ones(len(labels))
    return int(((np.array(labels, dtype=object) != expected) & (gap >= MIN_GAP)).sum())


def _batches(rows: Sequence[Array]) -> Iterator[Array]:
    """Stack neighbouring images of one size."""
    for _, same in itertools.groupby(rows, key=lambda row: row.shape):
        while batch := list(itertools.islice(same, _BATCH_ROWS)):
            yield np.stack(batch)
