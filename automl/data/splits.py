"""A split that survives growth: a row keeps its part for as long as it exists.

A row's position in [0, 1) is a keyed hash of its content; a part is an interval of positions. The
intervals of a label are fixed once, so rows added later do not move the others. Labels are whatever
a track stratifies by; without any, all rows have the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from automl.data.digest_index import Digests, first_equal
from automl.data.texts import Coded
from automl.domain.specification import Split

OWN_TEST_SET = ""  # key of its threshold: no label, of which none is empty


class Part(StrEnum):
    """Parts of a split by use, in the order of the intervals, training rows last.

    A track is free to use several alike, or to have other parts.
    """

    REPORT = "report"
    GATE = "gate"
    CALIBRATION = "calibration"
    SELECTION = "selection"
    TRAIN = "train"


PARTS = tuple(Part)
Parts = NDArray[np.uint8]  # places in `PARTS`
Thresholds = tuple[float, ...]
SortedPlaces = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """Settings by which rows are held out.

    Attributes:
        split: `stratified` counts per label, `random` over all rows; see `automl.data.assignment`
            for those by a column.
        validation_fraction: of all rows; three quarters selection, one quarter calibration.
        test_fraction: of all rows; half gate, half report.
        seed: key of the hash.
    """

    split: Split
    validation_fraction: float
    test_fraction: float
    seed: int

    @property
    def nominal(self) -> Thresholds:
        """Return the upper ends of the first four parts for infinitely many rows."""
        test, validation = self.test_fraction, self.validation_fraction
        return (test / 2, test, test + validation / 4, test + validation)


def position(digest: str, seed: int) -> float:
    """Return the row's place in [0, 1), a function of its digest, hexadecimal, and the seed."""
    one = np.frombuffer(bytes.fromhex(digest), np.uint8)
    return float(positions(one[np.newaxis], seed)[0])


def positions(digests: Digests, seed: int) -> NDArray[np.float64]:
    """Return the place of each digest, uint8 `[n, k]`, in [0, 1), float64 `[n]`."""
    keyed = blake2b(digest_size=8, key=str(seed).encode()[:64])
    values, width = bytearray(), digests.shape[1]
    joined = np.ascontiguousarray(digests).data.cast("B")
    for start in range(0, len(joined), width):
        hashed = keyed.copy()
        hashed.update(joined[start : start + width])
        values += hashed.digest()
    upper = np.frombuffer(values, ">u8") >> 11  # as many bits as a number of 64 bits holds exactly
    return upper.astype(np.float64) / float(1 << 53)


def split_rows(
    digests: Digests,
    labels: Coded,
    settings: SplitSettings,
    fixed: Mapping[str, Sequence[float]] | None = None,
) -> tuple[Parts, dict[str, Thresholds]]:
    """Return the part of each row, and the thresholds per label that decided.

    Rows with the same digest share one part, that of their smallest label. Without `fixed` the
    thresholds lie between this dataset's positions such that the parts' sizes are the exact
    roundings of their fractions. With `fixed`, labels unknown there use the fractions
    themselves, which do not depend on the rows present either.
    """
    assert settings.split in {Split.STRATIFIED, Split.RANDOM}
    labels = labels.sorted()
    first = first_equal(digests)
    owner = np.full(len(first), len(labels.names), np.int32)  # code of the smallest label
    np.minimum.at(owner, first, labels.codes)
    places = positions(digests, settings.seed)
    if fixed is not None:
        thresholds = {n: tuple(fixed.get(n, settings.nominal)) for n in labels.names}
    else:
        is_first = first == np.arange(len(first))
        thresholds = _choose_thresholds(owner[is_first], places[is_first], labels.names, settings)
    ends = np.asarray([thresholds[name] for name in labels.names]).reshape(-1, len(PARTS) - 1)
    return parts_of(places, ends, owner[first]), thresholds


def split_in_two(digests: Digests, seed: int, share: float) -> float:
    """Return the position below which the given share of the rows lies, rounded down in halves.

    Args:
        digests: of the rows.
        seed: key of the hash.
        share: a half or a quarter.
    """
    places = np.unique(positions(digests, seed))
    return end_below(places, math.ceil(len(places) * share - 0.5), share)


def parts_of(
    places: NDArray[np.float64],
    ends: NDArray[np.float64],
    lines: NDArray[np.int32] | None = None,
) -> Parts:
    """Return the part whose interval holds each place.

    Args:
        places: float64 `[n]`.
        ends: upper ends of the first parts' intervals, float64 `[4]`, or `[k, 4]` with `lines`.
        lines: the line of `ends` that holds for each place, int32 `[n]`.
    """
    parts = np.full(len(places), PARTS.index(Part.TRAIN), np.uint8)
    for number in reversed(range(ends.shape[-1])):
        parts[places < (ends[number] if lines is None else ends[lines, number])] = number
    return parts


Sizes = tuple[int, int, int, int]


def part_sizes(counts: Sequence[int], settings: SplitSettings) -> list[Sizes]:
    """Return how many rows of each label the first four parts get.

    Test and validation rows are rounded label by label; at least one row is left for training.
    Their halves and quarters are apportioned over all labels, one after the other: of many labels
    with few rows each, some have a row for the report or for calibration and others none. Of an odd
    number of all test rows the gate has one more, and a quarter of all validation rows that ends in
    a half is rounded down, so that few rows serve decisions first.

    Args:
        counts: rows of each label.
        settings: the fractions.
    """
    sizes = []
    tests = validations = 0  # of the labels so far
    for n in counts:
        test = min(math.floor(n * settings.test_fraction + 0.5), n - 1)
        validation = min(math.floor(n * settings.validation_fraction + 0.5), n - 1 - test)
        report = _half(tests + test) - _half(tests)
        calibration = _quarter(validations + validation) - _quarter(validations)
        sizes.append((report, test - report, calibration, validation - calibration))
        tests, validations = tests + test, validations + validation
    return sizes


def _half(n: int) -> int:
    return n // 2


def _quarter(n: int) -> int:
    return math.ceil(n / 4 - 0.5)


def _choose_thresholds(
    owner: NDArray[np.int32],
    places: NDArray[np.float64],
    names: Sequence[str],
    settings: SplitSettings,
) -> dict[str, Thresholds]:
    """Return thresholds for each label.

    Args:
        owner: codes of the labels of different contents.
        places: of these contents.
        names: of the labels.
        settings: how they are held out.
    """
    if settings.split is Split.RANDOM:
        (sizes,) = part_sizes([len(places)], settings)
        return dict.fromkeys(names, _fit_thresholds(np.sort(places), sizes, settings))
    ordered = places[np.lexsort((places, owner))]
    counts = np.bincount(owner, minlength=len(names)).tolist()
    all_sizes = iter(part_sizes([count for count in counts if count], settings))
    thresholds, start = {}, 0
    for name, count in zip(names, counts, strict=True):
        own, start = ordered[start : start + count], start + count
        # all rows of a label without contents of its own belong to smaller labels
        fitted = _fit_thresholds(own, next(all_sizes), settings) if count else settings.nominal
        thresholds[name] = fitted
    return thresholds


def _fit_thresholds(places: SortedPlaces, sizes: Sizes, settings: SplitSettings) -> Thresholds:
    """Return thresholds that give every part exactly its size.

    Any value in the gap between two neighbouring places does. The one nearest to the fraction
    serves rows added later best; it keeps off the gap's ends by a quarter of the gap.
    """
    chosen = []
    below = 0
    for fraction, size in zip(settings.nominal, sizes, strict=True):
        below += size
        chosen.append(end_below(places, below, fraction))
    return tuple(chosen)


def end_below(places: SortedPlaces, below: int, fraction: float) -> float:
    """Return the end of an interval that holds the first few of sorted places.

    Args:
        places: in [0, 1).
        below: how many of them it holds.
        fraction: where the end lies best; 0 if there is no such part.
    """
    if fraction <= 0:
        return 0.0
    low = float(places[below - 1]) if below else 0.0
    high = float(places[below]) if below < len(places) else 1.0
    margin = (high - low) / 4
    return min(max(fraction, low + margin), high - margin)
