"""Measurements of a published file: its predictions for raw rows, and how long it takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable

import numpy as np

from automl.errors import DataError
from automl.onnx.model import OnnxModel
from automl.tracks.track import Feed, Outputs, RawRow, Truth

_LATENCY_BATCHES = (1, 32)
_LATENCY_RUNS = 30
_LATENCY_THREADS = 1

Latency = dict[str, dict[str, float] | int]


def predict_rows(
    model: OnnxModel, rows: Iterable[RawRow], labels: tuple[str, ...]
) -> tuple[Outputs, Truth]:
    """Return what the file computes for rows, each by itself, and what is true of them.

    Args:
        model: the file.
        rows: one or more.
        labels: the classes that their truths count; empty for values.

    Raises:
        DataError: there are no rows, or the file cannot read one.
    """
    values, truths = [], []
    for row in rows:
        values.append(model.predict(row.feed).values[0])
        truths.append(row.truth)
    if not values:
        raise DataError(
            "The snapshot has no test rows to measure the file with.",
            "raise data.test_fraction, or add rows",
        )
    return Outputs(np.stack(values), model.labels), Truth(np.asarray(truths), labels)


def measure_latency(onnx: bytes, example: Feed) -> Latency:
    """Return milliseconds per call, p50 and p95 by batch size, on the `threads` that it names.

    Args:
        onnx: the file.
        example: a row; batches repeat it.
    """
    model = OnnxModel(onnx, _LATENCY_THREADS)
    measured: Latency = {"threads": _LATENCY_THREADS}
    for batch in _LATENCY_BATCHES:
        feed = {name: np.repeat(array, batch, axis=0) for name, array in example.items()}
        times = []
        for _ in range(_LATENCY_RUNS):
            start_s = time.perf_counter()
            model.predict(feed)
            times.append(1000 * (time.perf_counter() - start_s))
        cuts = statistics.quantiles(times, n=20)
        measured[str(batch)] = {"p50": round(cuts[9], 3), "p95": round(cuts[18], 3)}
    return measured
