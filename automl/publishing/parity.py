"""Parity: whether an exported file computes what its members compute."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from automl.errors import ParityError
from automl.onnx.model import OnnxModel
from automl.publishing.manifest import Parity
from automl.tracks.track import Feed, Tolerance, Values

_BATCH_ROWS = 32


def check_parity(
    reference: Values, model: OnnxModel, feeds: Sequence[Feed], tolerance: Tolerance
) -> Parity:
    """Compare the file with what its members compute for raw rows.

    Args:
        reference: probabilities `[N, K]` or values `[N, 1]` of the members, float32, on the CPU.
        model: the exported file.
        feeds: the N rows, each as inputs of the file for one row.
        tolerance: how far both may be apart.

    Raises:
        ParityError: there is nothing to compare, or an output is not finite.
    """
    columns = len(model.labels) or 1
    if not len(feeds) or reference.shape != (len(feeds), columns):
        raise ParityError(
            f"Reference values have shape {reference.shape}; there are {len(feeds)} rows and "
            f"{len(model.labels)} labels."
        )
    predictions = [model.predict(batch) for batch in batches(feeds)]
    values = np.concatenate([prediction.values for prediction in predictions])
    if not (np.isfinite(values).all() and np.isfinite(reference).all()):
        raise ParityError("A predicted value is not finite.", "fit again; its activations overflow")
    difference = float(np.abs(values.astype(np.float64) - reference).max())
    unit = max(1.0, float(np.abs(reference).max())) if tolerance.relative else 1.0
    mismatches = 0
    if model.labels:
        chosen = [label for prediction in predictions for label in prediction.chosen]
        mismatches = _mismatches(reference, chosen, model.labels, tolerance.min_gap)
    return Parity(
        rows=len(feeds),
        max_abs_diff=difference,
        label_mismatches=mismatches,
        ok=difference <= tolerance.max_abs_diff * unit and mismatches == 0,
    )


def batches(feeds: Sequence[Feed]) -> Iterator[Feed]:
    """Yield neighbouring rows whose inputs have the same shapes as one feed each."""
    for _, same in itertools.groupby(feeds, key=_shapes):
        while batch := list(itertools.islice(same, _BATCH_ROWS)):
            yield {name: np.concatenate([feed[name] for feed in batch]) for name in batch[0]}


def _shapes(feed: Feed) -> Mapping[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feed.items()}


def _mismatches(
    reference: Values, chosen: Sequence[str], known: Sequence[str], min_gap: float
) -> int:
    """Return how many labels differ although the reference's two best are not that close."""
    expected = np.array(known, dtype=object)[reference.argmax(axis=1)]
    ordered = np.sort(reference.astype(np.float64), axis=1)
    gap = ordered[:, -1] - ordered[:, -2] if len(known) > 1 else np.ones(len(chosen))
    return int(((np.array(chosen, dtype=object) != expected) & (gap >= min_gap)).sum())
