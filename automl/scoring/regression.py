"""Metrics of predicted values, each with a 95 % interval.

Symbols: n rows, e the errors, y the true values, centred. Sums over rows hold n, Σ|e|, Σe², Σy and
Σy² in their last axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from automl.domain.objective import Objective
from automl.errors import DataError
from automl.scoring.interval import Interval

_CONFIDENCE = 0.95
_REPLICATES = 2000
_ROUNDING = 1e-12  # of a sum of squares

Values = NDArray[np.floating]


def regression_metrics(
    values: Values, truth: Values, seed: int | Sequence[int] = 0
) -> dict[str, Interval]:
    """Return rmse, mae and r2 with percentile intervals over rows drawn with replacement.

    Args:
        values: predictions `[n]` or `[n, 1]`.
        truth: true values `[n]`.
        seed: of the draws.

    Raises:
        DataError: there are no rows, or the shapes do not fit.
    """
    terms = _terms(values, truth)
    drawn = np.stack([*_drawn_sums(terms, np.random.default_rng(seed))])
    total, ends = terms.sum(axis=0), [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
    found = {}
    for objective, metric in _METRICS.items():
        low, high = np.quantile(metric(drawn), ends)
        value = float(metric(total))
        found[objective.value] = Interval(
            value=value, low=float(low), high=float(high), n=len(terms)
        )
    return found


def metric_draws(
    first: Values,
    second: Values,
    truth: Values,
    objective: Objective,
    seed: int | Sequence[int] = 0,
) -> tuple[Values, Values]:
    """Return a metric of two models on the same rows, and on the same draws of them.

    Args:
        first: predictions of the one model, `[n]` or `[n, 1]`.
        second: those of the other.
        truth: true values `[n]`.
        objective: names the metric.
        seed: of the draws.

    Returns:
        The metric of both on all rows, `[2]`, and on each of the draws, `[draws, 2]`.

    Raises:
        DataError: there are no rows, the shapes do not fit, or values have no such metric.
    """
    if objective not in _METRICS:
        raise DataError(f"Values have no {objective}.", f"use one of {', '.join(_METRICS)}")
    metric = _METRICS[objective]
    terms = np.stack([_terms(first, truth), _terms(second, truth)], axis=1)
    drawn = np.stack([*_drawn_sums(terms, np.random.default_rng(seed))])
    return metric(terms.sum(axis=0)), metric(drawn)


def _terms(values: Values, truth: Values) -> Values:
    """Return what the sums are made of, `[n, 5]`."""
    n = len(truth)
    predicted = np.asarray(values, np.float64)
    if not n or predicted.shape not in {(n,), (n, 1)}:
        raise DataError(f"There are {n} true values for predictions of shape {values.shape}.")
    errors = predicted.reshape(n) - truth
    centred = truth - np.mean(truth, dtype=np.float64)  # as sums of squares of large values cancel
    return np.stack([np.ones(n), np.abs(errors), errors**2, centred, centred**2], axis=1)


def _drawn_sums(terms: Values, rng: np.random.Generator) -> Iterator[Values]:
    """Yield the sums over n rows drawn with replacement, again and again."""
    n, flat = len(terms), terms.reshape(len(terms), -1)
    for _ in range(_REPLICATES):
        times = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        yield (times @ flat).reshape(terms.shape[1:])


def _rmse(sums: Values) -> Values:
    return np.asarray(np.sqrt(sums[..., 2] / sums[..., 0]))


def _mae(sums: Values) -> Values:
    return np.asarray(sums[..., 1] / sums[..., 0])


def _r2(sums: Values) -> Values:
    """Return 1 - Σe² / Σ(y - ȳ)²; where all y are equal 1 without errors, and 0 with some."""
    squares, of_squares = sums[..., 2], sums[..., 4]
    spread = of_squares - sums[..., 3] ** 2 / sums[..., 0]
    varies = spread > _ROUNDING * of_squares
    without = np.where(squares > 0, 1.0, 0.0)
    return np.asarray(1.0 - np.divide(squares, spread, out=without, where=varies))


_METRICS: Mapping[Objective, Callable[[Values], Values]] = {
    Objective.RMSE: _rmse,
    Objective.MAE: _mae,
    Objective.R2: _r2,
}
