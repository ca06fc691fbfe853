"""A split that survives growth: a row keeps its part for as long as it exists.

A row's position in [0, 1) is a keyed hash of its content; a part is an interval of positions. The
intervals of a label are fixed once, so rows added later do not move the others. Labels are whatever
a track stratifies by; without any, all rows have the same.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

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
Thresholds = tuple[float, ...]


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
    """Return the row's place in [0, 1), a function of its digest and the seed only."""
    key = str(seed).encode()[:64]
    value = blake2b(bytes.fromhex(digest), digest_size=8, key=key).digest()
    return (int.from_bytes(value, "big") >> 11) / float(1 << 53)


def split_rows(
    digests: Sequence[str],
    labels: Sequence[str],
    settings: SplitSettings,
    fixed: Mapping[str, Sequence[float]] | None = None,
) -> tuple[list[Part], dict[str, Thresholds]]:
    """Return the part of each row, and the thresholds per label that decided.

    Rows with the same digest share one part, that of their smallest label. Without `fixed` the
    thresholds lie between this dataset's positions such that the parts' sizes are the exact
    roundings of their fractions. With `fixed`, labels unknown there use the fractions
    themselves, which do not depend on the rows present either.
    """
    assert settings.split in {Split.STRATIFIED, Split.RANDOM}
    owner: dict[str, str] = {}
    for digest, label in zip(digests, labels, strict=True):
        owner[digest] = min(label, owner.get(digest, label))
    places = {digest: position(digest, settings.seed) for digest in owner}
    names = sorted(set(labels))
    if fixed is not None:
        nominal = settings.nominal
        thresholds = {name: tuple(fixed.get(name, nominal)) for name in names}
    else:
        thresholds = _choose_thresholds(owner, places, names, settings)
    parts = [part_of(places[digest], thresholds[owner[digest]]) for digest in digests]
    return parts, thresholds


def split_in_two(digests: Sequence[str], seed: int, share: float) -> float:
    """Return the position below which the given share of the rows lies, rounded down in halves.

    Args:
        digests: of the rows.
        seed: key of the hash.
        share: a half or a quarter.
    """
    places = sorted({position(digest, seed) for digest in digests})
    return end_below(places, math.ceil(len(places) * share - 0.5), share)


def part_of(place: float, thresholds: Sequence[float]) -> Part:
    """Return the part whose interval holds `place`."""
    return next(
        (part for part, end in zip(PARTS, thresholds, strict=False) if place < end), Part.TRAIN
    )


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
    owner: Mapping[str, str],
    places: Mapping[str, float],
    names: Sequence[str],
    settings: SplitSettings,
) -> dict[str, Thresholds]:
    if settings.split is Split.RANDOM:
        (sizes,) = part_sizes([len(places)], settings)
        return dict.fromkeys(names, _fit_thresholds(sorted(places.values()), sizes, settings))
    by_label: dict[str, list[float]] = defaultdict(list)
    for digest, label in owner.items():
        by_label[label].append(places[digest])
    present = [name for name in names if by_label[name]]
    all_sizes = part_sizes([len(by_label[name]) for name in present], settings)
    # all rows of the others belong to smaller labels
    return dict.fromkeys(names, settings.nominal) | {
        name: _fit_thresholds(sorted(by_label[name]), sizes, settings)
        for name, sizes in zip(present, all_sizes, strict=True)
    }


def _fit_thresholds(places: Sequence[float], sizes: Sizes, settings: SplitSettings) -> Thresholds:
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


def end_below(places: Sequence[float], below: int, fraction: float) -> float:
    """Return the end of an interval that holds the first few of sorted places.

    Args:
        places: in [0, 1).
        below: how many of them it holds.
        fraction: where the end lies best; 0 if there is no such part.
    """
    if fraction <= 0:
        return 0.0
    low = places[below - 1] if below else 0.0
    high = places[below] if below < len(places) else 1.0
    margin = (high - low) / 4
    return min(max(fraction, low + margin), high - margin)
