"""Losses as targets of the surrogate, by rank: neither outliers nor the metric's scale matter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from automl.search.arrays import Vector


@dataclass(frozen=True, slots=True, eq=False)
class NormalScores:
    """A rising map of losses to the quantiles of a normal distribution (van der Waerden, 1952).

    A network that learns nothing is some thousand standard errors worse than the best; by rank it
    is at most three standard deviations away, and the differences among the best, which the search
    is about, are stretched.

    Attributes:
        losses: the distinct losses, rising, (m,).
        scores: their targets, (m,).
        count: number of losses, equal ones counted each.
    """

    losses: Vector
    scores: Vector
    count: int

    @classmethod
    def of(cls, losses: Vector) -> NormalScores:
        """Return the map under which these losses, (n,) with n above 0, are normal scores."""
        distinct, counts = np.unique(losses, return_counts=True)
        ranks = np.cumsum(counts) - (counts - 1) / 2  # equal losses share their mean rank
        scores = ndtri((ranks - 0.5) / len(losses))
        return cls(distinct, np.asarray(scores, dtype=np.float64), len(losses))

    def __call__(self, losses: Vector) -> Vector:
        """Return the targets of losses.

        Beyond the known ones the map goes on as a line, to where the next rank would be: however
        much better or worse a loss is, it is by one rank at most.
        """
        targets = np.interp(losses, self.losses, self.scores)
        slope = self._mean_slope()
        below = np.minimum(losses - self.losses[0], 0)
        above = np.maximum(losses - self.losses[-1], 0)
        last = float(ndtri(1 - 0.5 / (self.count + 1)))
        least, most = min(-last, self.scores[0]), max(last, self.scores[-1])
        return np.asarray(np.clip(targets + slope * (below + above), least, most), dtype=np.float64)

    def inverse(self, targets: Vector) -> Vector:
        """Return the losses of targets; beyond the known ones, the outermost losses."""
        return np.asarray(np.interp(targets, self.scores, self.losses), dtype=np.float64)

    def variances(self, losses: Vector, errors: Vector) -> Vector:
        """Return the variance of the targets of losses with these standard errors."""
        half = (self(losses + errors) - self(losses - errors)) / 2
        return np.asarray(half**2, dtype=np.float64)

    def _mean_slope(self) -> float:
        """Return the slope of the better half, where the search is."""
        middle = len(self.losses) // 2
        rise = float(self.losses[middle] - self.losses[0])
        return float(self.scores[middle] - self.scores[0]) / rise if rise > 0 else 0.0
