"""Profiles of snapshots: what two of them are compared by, without their rows.

A track measures numbers of each row, such as an image's brightness. A profile keeps how they are
distributed, in bins that are the same for every snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

_ZERO_EXPONENT = -40  # what is nearer to 0 than 2 to this counts as 0, on a logarithmic scale
_MOST_EXPONENT = 80  # what is farther from 0 than 2 to this shares a bin
_LAST = 2**62  # of the bins of a linear scale
_FAR = 2.0**500  # values farther from 0 count as this, so that their squares can be summed up


class Scale(StrEnum):
    """Scale of the values that bins divide."""

    LINEAR = "linear"
    LOG = "log"  # each sign for itself, and 0


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bins(_Stored):
    """Bins of all numbers, fixed without a look at any.

    Attributes:
        scale: what they divide evenly.
        size: width of a bin, above 0; on a logarithmic scale bins per doubling of the value.
    """

    scale: Scale
    size: float = Field(gt=0, allow_inf_nan=False)

    def of(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the bin of each finite value; bins are numbered by the values they hold."""
        if self.scale is Scale.LINEAR:
            near = np.clip(values, -_LAST * self.size, _LAST * self.size)
            return np.floor(near / self.size).astype(np.int64)
        magnitudes = np.clip(np.abs(values), 2.0**_ZERO_EXPONENT, 2.0**_MOST_EXPONENT)
        steps = np.floor(self.size * (np.log2(magnitudes) - _ZERO_EXPONENT)).astype(np.int64)
        signs = np.where(np.abs(values) < 2.0**_ZERO_EXPONENT, 0, np.sign(values).astype(np.int64))
        bins: NDArray[np.int64] = signs * (steps + 1)
        return bins

    def bounds(self, number: int) -> tuple[float, float]:
        """Return the least value of a bin, and the one that is above all of its values.

        A bin of negative numbers on a logarithmic scale has the first, and not the second.
        """
        if self.scale is Scale.LINEAR:
            return number * self.size, (number + 1) * self.size
        if number == 0:
            return 0.0, 0.0
        steps = abs(number) - 1, abs(number)
        low, high = (2.0 ** (step / self.size + _ZERO_EXPONENT) for step in steps)
        return (low, high) if number > 0 else (-high, -low)


class Distribution(_Stored):
    """Distribution of a number over the rows of a snapshot.

    Attributes:
        bins: what `counts` are of.
        counts: rows by bin; a bin without rows is left out.
        mean: of the values that are there, 0 without any.
        std: their standard deviation.
        missing: rows without a finite value.
    """

    bins: Bins
    counts: dict[int, int]
    mean: float
    std: float
    missing: int = 0

    @classmethod
    def of(cls, values: ArrayLike, bins: Bins) -> Distribution:
        """Return the distribution of a value a row; NaN where a row has none."""
        rows = np.asarray(values, dtype=np.float64)
        known = np.clip(rows[np.isfinite(rows)], -_FAR, _FAR)
        places, counts = np.unique(bins.of(known), return_counts=True)
        return cls(
            bins=bins,
            counts=dict(zip(places.tolist(), counts.tolist(), strict=True)),
            mean=float(known.mean()) if known.size else 0.0,
            std=float(known.std()) if known.size else 0.0,
            missing=rows.size - known.size,
        )

    @property
    def known(self) -> int:
        """Number of the rows that have a value."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> tuple[float, float]:
        """Return the bounds of the bin below whose end a share of the known rows lies.

        Args:
            share: above 0, at most 1. The least bin is that of the smallest share.

        Raises:
            ValueError: no row has a value.
        """
        places = sorted(self.counts)
        if not places:
            raise ValueError("no row has a value")
        sums = np.cumsum([self.counts[place] for place in places])
        return self.bins.bounds(places[int(np.searchsorted(sums, share * self.known))])


class Profile(_Stored):
    """Description of a snapshot for comparison with another of the same study.

    Attributes:
        rows_listed: rows that the source listed.
        rows: those of them that the snapshot holds.
        rows_per_label: those by label; empty where labels are no classes.
        excluded: rows that are left out since they show nearly what others do.
        duplicates: rows whose content an earlier row has already.
        statistics: numbers of the rows, by name. A statistic that is measured in another way has
            another name.
    """

    rows_listed: int
    rows: int
    rows_per_label: dict[str, int] = Field(default_factory=dict)
    excluded: int = 0
    duplicates: int = 0
    statistics: dict[str, Distribution] = Field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rows_listed: int,
        digests: Sequence[str],
        labels: Sequence[str],
        statistics: Mapping[str, Distribution],
        excluded: int = 0,
    ) -> Profile:
        """Return the profile of a snapshot.

        Args:
            rows_listed: rows that the source listed.
            digests: of the content of each row that the snapshot holds.
            labels: class of each of them; none where labels are no classes.
            statistics: of these rows, by name.
            excluded: rows that are left out since they show nearly what others do.
        """
        return cls(
            rows_listed=rows_listed,
            rows=len(digests),
            rows_per_label=dict(sorted(Counter(labels).items())),
            excluded=excluded,
            duplicates=len(digests) - len(set(digests)),
            statistics=dict(statistics),
        )

    @property
    def quarantined(self) -> int:
        """Number of the listed rows that cannot be used."""
        return self.rows_listed - self.rows - self.excluded
