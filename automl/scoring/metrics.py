"""Metrics of a classifier, each with a 95 % interval.

Symbols: n rows, K classes, C the confusion matrix (true class, predicted class).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from automl.errors import DataError
from automl.scoring.interval import Interval

_CONFIDENCE = 0.95
_NORMAL_QUANTILE = 1.959963984540054  # of 0.975
_REPLICATES = 2000
_SMALLEST = 1e-15

Array = np.ndarray[Any, Any]


def classification_metrics(
    probabilities: Array, labels: Array, seed: int | Sequence[int] = 0
) -> dict[str, Interval]:
    """Return accuracy, log_loss, balanced_accuracy and macro_f1.

    Args:
        probabilities: `[n, K]`; the largest decides, the first of equals.
        labels: true classes, whole numbers `[n]` in 0 … K - 1.
        seed: of the bootstrap.

    Raises:
        DataError: there are no rows, or the shapes do not fit.
    """
    n = len(labels)
    if not n or probabilities.ndim != 2 or len(probabilities) != n:
        raise DataError(f"There are {n} labels for probabilities of shape {probabilities.shape}.")
    matrix = confusion_matrix(probabilities.argmax(axis=1), labels, probabilities.shape[1])
    rng = np.random.default_rng(seed)
    return {
        "accuracy": accuracy(int(np.trace(matrix)), n),
        "log_loss": log_loss(probabilities, labels),
        "balanced_accuracy": _bootstrap(matrix, _balanced_accuracy, rng),
        "macro_f1": _bootstrap(matrix, _macro_f1, rng),
    }


def confusion_matrix(predicted: Array, labels: Array, classes: int) -> Array:
    """Return counts `[true class, predicted class]`.

    Raises:
        DataError: a label is not a class.
    """
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"Labels {labels.min()} to {labels.max()} are not among {classes} classes.")
    cells = np.asarray(labels, dtype=np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def accuracy(correct: int, n: int) -> Interval:
    """Return the share of correct rows with its exact interval (Clopper and Pearson, 1934)."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(_CONFIDENCE, method="exact")
    return Interval(value=correct / n, low=float(interval.low), high=float(interval.high), n=n)


def log_loss(probabilities: Array, labels: Array) -> Interval:
    """Return the mean -log p of the true class in nats with its normal interval."""
    n = len(labels)
    chosen = probabilities[np.arange(n), labels].astype(np.float64)
    losses = -np.log(np.clip(chosen, _SMALLEST, 1.0))
    value = float(losses.mean())
    error = float(losses.std(ddof=1)) / n**0.5 if n > 1 else value
    spread = _NORMAL_QUANTILE * error
    return Interval(value=value, low=max(0.0, value - spread), high=value + spread, n=n)


def _bootstrap(
    matrix: Array, metric: Callable[[Array, Array, Array], float], rng: np.random.Generator
) -> Interval:
    """Return a percentile interval over rows drawn with replacement.

    Rows of one cell of C are alike, so a draw of n rows is a multinomial draw of C.
    """
    n, classes = int(matrix.sum()), len(matrix)
    true, predicted = np.nonzero(matrix)
    counts = matrix[true, predicted]

    def value(drawn: Array) -> float:
        hit = true == predicted
        return metric(
            np.bincount(true[hit], weights=drawn[hit], minlength=classes),
            np.bincount(true, weights=drawn, minlength=classes),
            np.bincount(predicted, weights=drawn, minlength=classes),
        )

    replicates = [value(rng.multinomial(n, counts / n)) for _ in range(_REPLICATES)]
    low, high = np.quantile(replicates, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Interval(value=value(counts), low=float(low), high=float(high), n=n)


def _balanced_accuracy(hits: Array, true: Array, predicted: Array) -> float:
    """Return the mean recall of the classes that occur."""
    occurs = true > 0
    return float((hits[occurs] / true[occurs]).mean())


def _macro_f1(hits: Array, true: Array, predicted: Array) -> float:
    """Return the mean F1 of the classes that occur or are predicted."""
    total = true + predicted
    occurs = total > 0
    return float((2 * hits[occurs] / total[occurs]).mean())
