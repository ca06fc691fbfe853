"""Pictures that differ from nearly all others of their dataset, by numbers of each.

A number is odd where its modified z-score, 0.6745 (x - median) / MAD, is beyond 3.5 (Iglewicz and
Hoaglin, "How to detect and handle outliers", ASQC 1993). Where more than half of the values are
equal, so that their median absolute deviation is 0, its place is taken by 1.2533 times the mean
absolute deviation, which is as large for a normal distribution. The score alone takes the tail of a
skewed distribution for odd; so the number also has to be far out, more than three interquartile
ranges beyond the quartiles (Tukey, "Exploratory data analysis", 1977). Sharpness and sizes are
compared by their logarithms, since they are products of many causes; they are odd where they differ
from the median by a factor of two at least, since most pictures of a camera have one size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_Z, MOST_RANGES, LEAST_FACTOR = 3.5, 3.0, 2.0
_MAD, _MEAN_DEVIATION = 0.6745, 1.253314
_TINY = 1e-9  # of what has logarithms

Values = NDArray[np.float64]


class Oddity(StrEnum):
    """Reason why a picture is odd."""

    DARK = "dark"
    BRIGHT = "bright"
    BLURRED = "blurred"
    TINY = "tiny"
    OUTLIER = "outlier"


class OddPicture(NamedTuple):
    """A picture that differs from nearly all others.

    Attributes:
        row: its index.
        oddity: why.
        score: absolute modified z-score; the larger, the odder.
        note: the number and the median of all, for people.
    """

    row: int
    oddity: Oddity
    score: float
    note: str


def odd_pictures(statistics: Mapping[str, Values]) -> list[OddPicture]:
    """Return the pictures that are dark, bright, blurred, tiny, or outliers otherwise.

    Dark and bright are judged by `brightness`, blurred by `sharpness`, tiny by the shorter side.
    Outliers have an odd `contrast`, or an odd ratio of `width` and `height`.

    Args:
        statistics: numbers by name, those that are known [n]; NaN where a row has none.

    Returns:
        The pictures by oddity, the oddest of each first.
    """
    found = sorted(_found(statistics), key=lambda odd: (odd.oddity, -odd.score, odd.row))
    places = {oddity: place for place, oddity in enumerate(Oddity)}
    return sorted(found, key=lambda odd: places[odd.oddity])


def _found(statistics: Mapping[str, Values]) -> Iterator[OddPicture]:
    for name, values, low, high in _judged(statistics):
        is_log = name not in {"brightness", "contrast"}
        compared = np.log(np.maximum(values, _TINY)) if is_log else values
        scores = np.where(is_far_out(compared), modified_z(compared), 0.0)
        middle = float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else 0.0
        if is_log:
            ratios = np.maximum(values, _TINY) / max(middle, _TINY)
            scores[np.maximum(ratios, 1 / ratios) < LEAST_FACTOR] = 0.0
        for row in np.flatnonzero(np.abs(scores) > MOST_Z).tolist():
            oddity = low if scores[row] < 0 else high
            if oddity is not None:
                note = f"{name} {values[row]:.4g}, the median is {middle:.4g}"
                yield OddPicture(row, oddity, abs(float(scores[row])), note)


def _judged(
    statistics: Mapping[str, Values],
) -> Iterator[tuple[str, Values, Oddity | None, Oddity | None]]:
    """Yield numbers with their names, and what small and large ones are called."""
    if "brightness" in statistics:
        yield "brightness", statistics["brightness"], Oddity.DARK, Oddity.BRIGHT
    if "sharpness" in statistics:
        yield "sharpness", statistics["sharpness"], Oddity.BLURRED, None
    if "contrast" in statistics:
        yield "contrast", statistics["contrast"], Oddity.OUTLIER, Oddity.OUTLIER
    if {"height", "width"} <= statistics.keys():
        height, width = statistics["height"], statistics["width"]
        yield "shorter side", np.minimum(height, width), Oddity.TINY, None
        yield "width by height", width / np.maximum(height, 1.0), Oddity.OUTLIER, Oddity.OUTLIER


def is_far_out(values: Values) -> NDArray[np.bool_]:
    """Return which values are more than three interquartile ranges beyond the quartiles [n]."""
    known = values[np.isfinite(values)]
    if not known.size:
        return np.zeros(len(values), np.bool_)
    low, high = np.percentile(known, [25, 75])
    margin = MOST_RANGES * (high - low)
    far: NDArray[np.bool_] = (values < low - margin) | (values > high + margin)
    return far


def modified_z(values: Values) -> Values:
    """Return the modified z-scores of values [n]; 0 where all are equal, and for NaN."""
    known = values[np.isfinite(values)]
    if not known.size:
        return np.zeros(len(values))
    middle = np.median(known)
    deviations = np.abs(known - middle)
    scale = np.median(deviations) / _MAD or _MEAN_DEVIATION * deviations.mean()
    if not scale:
        return np.zeros(len(values))
    scores: Values = np.nan_to_num((values - middle) / scale, nan=0.0)
    return scores
