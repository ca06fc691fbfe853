"""Memory that trainings really take: predictions corrected by peaks that were measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from automl.domain.trial import Device, Outcome, Trial
from automl.search.arrays import Vector

_OVER_PRIOR = 1.2  # of one trial before the first: how far a peak may exceed its prediction
_QUANTILE = 0.9  # of the trials that a limit is to hold for
_LEAST_SLOPE = 0.25  # peaks of networks of one size say nothing of how they grow
_SLOPE_ERROR = 0.5  # standard deviation of the prior of slope 1
_OFFSET_ERROR = 2.0  # that of offset 0, in units of the middle peak
_NOISE = 0.05  # that of a peak, relative
_USUAL_ERROR = 0.1  # relative; errors above count by their size, not by its square
_ROUNDS = 30
_TOLERANCE = 0.95  # of what ran out of memory; what needs more would run out as well
_BITS = 5  # significant ones of a bound


@dataclass(frozen=True, slots=True)
class MemoryCorrection:
    """A line from predicted to measured bytes.

    Attributes:
        offset_bytes: what every training takes besides, such as code that is loaded.
        slope: bytes for each predicted one.
        margin: factor, 1 or more, that all but a tenth of the measured peaks stay below.
    """

    offset_bytes: float = 0.0
    slope: float = 1.0
    margin: float = _OVER_PRIOR

    def expected(self, predicted_bytes: float) -> float:
        """Return the peak that is to be expected."""
        return self.offset_bytes + self.slope * predicted_bytes

    def upper(self, predicted_bytes: float) -> float:
        """Return a peak that nine of ten trainings stay below."""
        return self.margin * self.expected(predicted_bytes)

    def most_predicted(self, limit_bytes: float) -> int:
        """Return the largest prediction whose `upper` is within a limit, 0 at least."""
        return max(0, math.floor((limit_bytes / self.margin - self.offset_bytes) / self.slope))


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """Bound of what trainings on a device may be predicted to take.

    Attributes:
        most_bytes: the largest prediction that fits by what has been measured; None without limit.
        out_of_memory_bytes: the smallest prediction that is known not to fit, since a training ran
            out of memory; None if none has.
        resident_bytes: rows that stay on the device during a training, a part of each prediction.
    """

    most_bytes: int | None = None
    out_of_memory_bytes: int | None = None
    resident_bytes: int = 0


def fit_correction(points: Sequence[tuple[int, int]]) -> MemoryCorrection:
    """Return the correction for (predicted, measured) bytes of trainings on one type of device.

    Huber's estimate of the relative errors (Annals of Statistics 35, 1964), by reweighted least
    squares, next to a prior of slope 1 and offset 0. One trial that took far more than the others,
    as the first of a process does, changes little.
    """
    if not points:
        return MemoryCorrection()
    predicted, measured = np.maximum(np.array(points, dtype=np.float64).T, 1.0)
    offset, slope = _line(predicted, measured)
    ratios = sorted([*(measured / (offset + slope * predicted)).tolist(), _OVER_PRIOR])
    margin = ratios[math.ceil(_QUANTILE * (len(ratios) - 1))]
    return MemoryCorrection(offset, slope, max(1.0, margin))


def _line(predicted: Vector, measured: Vector) -> tuple[float, float]:
    unit = float(np.median(measured))  # so that offset and slope are of one magnitude
    design = np.stack([unit / measured, predicted / measured], axis=1)
    weights, line = np.ones(len(measured)), np.array([0.0, 1.0])
    for _ in range(_ROUNDS):
        line = _weighted(design, weights)
        errors = np.abs(design @ line - 1)
        weights = _USUAL_ERROR / np.maximum(errors, _USUAL_ERROR)
    return float(line[0]) * unit, float(line[1])


def _weighted(design: Vector, weights: Vector) -> Vector:
    """Return offset and slope of the weighted least squares, within their bounds."""
    # each row says "offset * x + slope * y = value", the last two speak for the prior
    scale = np.sqrt(weights) / _NOISE
    rows = np.vstack([design * scale[:, None], [[1 / _OFFSET_ERROR, 0], [0, 1 / _SLOPE_ERROR]]])
    values = np.concatenate([scale, [0, 1 / _SLOPE_ERROR]])
    line: Vector = np.linalg.lstsq(rows, values, rcond=None)[0]
    x, y = rows.T
    if line[0] < 0:
        return np.array([0.0, max(_LEAST_SLOPE, values @ y / (y @ y))])
    if line[1] < _LEAST_SLOPE:
        rest = values - _LEAST_SLOPE * y
        return np.array([max(0.0, rest @ x / (x @ x)), _LEAST_SLOPE])
    return line


def correction_of(trials: Iterable[Trial], device_type: str) -> MemoryCorrection:
    """Return the correction by what trials measured on a type of device.

    Trials whose gradients had to be accumulated do not count: their peak is that of the attempt
    before.
    """
    return fit_correction(
        [
            (found.predicted_bytes, found.peak_bytes)
            for found in (trial.measurement for trial in trials)
            if found.device == device_type
            and found.peak_bytes is not None
            and found.predicted_bytes is not None
            and not found.is_accumulated
        ]
    )


def memory_bound(
    trials: Sequence[Trial], device: Device, limit_bytes: int | None = None
) -> MemoryBound:
    """Return what the trials of a study tell of what fits on a device.

    Bounds have few significant digits, so that a further trial seldom changes them.

    Args:
        trials: of all generations and snapshots.
        device: where the next training runs.
        limit_bytes: of the study, besides the device's memory.
    """
    limits = [limit for limit in (device.memory_bytes, limit_bytes) if limit is not None]
    most = None
    if limits:
        most = rounded_down(correction_of(trials, device.type).most_predicted(min(limits)))
    ran_out = [
        trial.measurement.predicted_bytes
        for trial in trials
        if trial.outcome is Outcome.OUT_OF_MEMORY
        and trial.measurement.device == device.type
        and trial.measurement.predicted_bytes is not None
    ]
    failed = math.floor(_TOLERANCE * min(ran_out)) if ran_out else None
    return MemoryBound(most, failed)


def rounded_down(count: int) -> int:
    """Return the largest number of few significant binary digits that is not larger."""
    shift = max(0, count.bit_length() - _BITS)
    return count >> shift << shift
