"""Parts of rows by any split: by label, over all rows, by group or by time.

A row never changes its part while it exists, whatever rows come or go; and equal content is never
in two parts. Where a group or a time would put equal content into several parts, the rows nearest
to training stay and the others are left out, since neither could move without breaking a promise.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from automl.data.digest_index import Digests, first_equal
from automl.data.splits import (
    PARTS,
    Part,
    Parts,
    SplitSettings,
    Thresholds,
    end_below,
    part_sizes,
    parts_of,
    position,
    positions,
    split_in_two,
    split_rows,
)
from automl.data.texts import Coded
from automl.data.times import read_times
from automl.domain.specification import Split

GROUPS = "groups"  # key of the thresholds between groups
TEST, VALIDATION = "test", "validation"  # keys of the windows of time
LEFT_OUT = len(PARTS)
_HALF, _QUARTER = 0.5, 0.25  # report rows of test rows, calibration rows of validation rows


@dataclass(frozen=True, slots=True)
class SplitRows:
    """Rows to split.

    Attributes:
        names: for people.
        digests: of their content, uint8 `[n, 32]`.
        labels: what `stratified` counts by.
        values: groups or times, for a split by one; else not looked at.
    """

    names: Sequence[str]
    digests: Digests
    labels: Coded
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Parts of rows.

    Attributes:
        parts: of each row, a place in `PARTS`; LEFT_OUT where it is left out.
        thresholds: what decided, and is to decide about rows to come.
        twins: for each row that is left out, the row with equal content that stays.
    """

    parts: Parts
    thresholds: dict[str, Thresholds]
    twins: Mapping[int, int] = field(default_factory=dict)


def assign_parts(
    rows: SplitRows,
    settings: SplitSettings,
    fixed: Mapping[str, Sequence[float]] | None = None,
) -> Assignment:
    """Return the part of each row.

    Args:
        rows: the rows.
        settings: how they are held out.
        fixed: thresholds that have been chosen for earlier rows; None chooses them.

    Raises:
        DataError: a row's time is none; the problems list such rows.
    """
    if settings.split is Split.GROUP:
        parts, thresholds = _by_group(rows, settings, fixed)
    elif settings.split is Split.TIME:
        parts, thresholds = _by_time(rows, settings, fixed)
    else:
        by_label, thresholds = split_rows(rows.digests, rows.labels, settings, fixed)
        return Assignment(by_label, thresholds)
    twins = _straddling(rows.digests, parts)
    parts[list(twins)] = LEFT_OUT
    return Assignment(parts, thresholds, twins)


def _straddling(digests: Digests, parts: Parts) -> dict[int, int]:
    """Return the rows whose content is nearer to training, too, and a row that has it there."""
    first = first_equal(digests)
    nearest = np.zeros(len(parts), np.uint8)
    np.maximum.at(nearest, first, parts)
    straddling = np.flatnonzero(parts != nearest[first])
    wanted = np.isin(first, first[straddling])
    there = np.flatnonzero(wanted & (parts == nearest[first]))
    row_of = dict(zip(reversed(first[there].tolist()), reversed(there.tolist()), strict=True))
    return {
        row: row_of[at]
        for row, at in zip(straddling.tolist(), first[straddling].tolist(), strict=True)
    }


# --- groups ---


def _by_group(
    rows: SplitRows, settings: SplitSettings, fixed: Mapping[str, Sequence[float]] | None
) -> tuple[Parts, dict[str, Thresholds]]:
    """Return the part of each row's group, by the group's own position.

    Groups that have equal content when the thresholds are chosen are one from then on: their common
    position is recorded beside the thresholds.
    """
    groups = Coded.of(rows.values).sorted()
    own = [_place(group, settings.seed) for group in groups.names]
    if fixed is None:
        first = first_equal(rows.digests)
        joined = _joined(groups.codes, first)
        places = [own[joined.get(code, code)] for code in range(len(own))]
        counts = np.bincount(groups.codes[first == np.arange(len(first))], minlength=len(own))
        ends = _ends_between(counts.tolist(), places, settings)
        recorded = {_record(groups.names[code], settings.seed): (places[code],) for code in joined}
        thresholds: dict[str, Thresholds] = {GROUPS: ends, **recorded}
    else:
        thresholds = {key: tuple(values) for key, values in fixed.items()}
        ends = thresholds[GROUPS]
        records = [_record(group, settings.seed) for group in groups.names]
        places = [thresholds.get(key, (place,))[0] for key, place in zip(records, own, strict=True)]
    return parts_of(np.asarray(places)[groups.codes], np.asarray(ends)), thresholds


def _place(group: str, seed: int) -> float:
    return position(blake2b(group.encode(), digest_size=32).hexdigest(), seed)


def _record(group: str, seed: int) -> str:
    """Return the key under which a joined group's position is recorded; it does not tell names."""
    return blake2b(group.encode(), digest_size=16, key=str(seed).encode()[:64]).hexdigest()


def _joined(groups: NDArray[np.int32], first: NDArray[np.int64]) -> dict[int, int]:
    """Return groups with equal content, and the first by name of those that each is one with.

    Args:
        groups: of each row; they are numbered by their names.
        first: the first row with the content of each row.
    """
    above: dict[int, int] = {}

    def root(group: int) -> int:
        while above.setdefault(group, group) != group:
            above[group] = group = above[above[group]]
        return group

    pairs = np.stack([groups[first], groups], axis=1)
    for one, other in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist():
        low, high = sorted((root(one), root(other)))
        above[high] = low
    return {group: root(group) for group in sorted(above)}


def _ends_between(
    counts: Sequence[int], places: Sequence[float], settings: SplitSettings
) -> Thresholds:
    """Return ends that give the parts about as many rows as the fractions say, groups whole.

    Args:
        counts: different contents of each group.
        places: of the groups.
        settings: the fractions.
    """
    weight_of: dict[float, int] = defaultdict(int)
    for place, count in zip(places, counts, strict=True):
        weight_of[place] += count
    units = sorted(place for place, weight in weight_of.items() if weight)
    (sizes,) = part_sizes([sum(counts)], settings)
    report, gate, calibration, selection = sizes
    cuts = _cut(
        [weight_of[unit] for unit in units],
        list(accumulate(sizes)),
        [0, int(report + gate > 0), 0, int(calibration + selection > 0)],
    )
    return tuple(
        end_below(units, cut, fraction)
        for cut, fraction in zip(cuts, settings.nominal, strict=True)
    )


def _cut(weights: Sequence[int], targets: Sequence[int], least: Sequence[int]) -> list[int]:
    """Return how many units lie before each cut, in order, so that their weight meets its target.

    Args:
        weights: of the units.
        targets: weight before each cut.
        least: units that have to lie between a cut and the one before it. One is left behind the
            last, as far as there are units.
    """
    before = [0, *accumulate(weights)]
    cuts, at = [], 0
    for number, (target, needed) in enumerate(zip(targets, least, strict=True)):
        low = min(at + needed, len(weights))
        high = max(low, len(weights) - sum(least[number + 1 :]) - 1)
        near = min(max(bisect_left(before, target), low), high)
        at = min((near, max(near - 1, low)), key=lambda place: abs(before[place] - target))
        cuts.append(at)
    return cuts


# --- times ---


def _by_time(
    rows: SplitRows, settings: SplitSettings, fixed: Mapping[str, Sequence[float]] | None
) -> tuple[Parts, dict[str, Thresholds]]:
    """Return the part of each row by its time: the newest are test rows, the oldest training rows.

    Within the windows of test and of validation rows, content decides as it does elsewhere.
    """
    times = read_times(rows.values, rows.names, "data.time")
    if fixed is None:
        thresholds = _windows(rows.digests, times, settings)
    else:
        thresholds = {key: tuple(values) for key, values in fixed.items()}
    places = positions(rows.digests, settings.seed)
    parts = np.full(len(times), PARTS.index(Part.TRAIN), np.uint8)
    windows = (
        (VALIDATION, Part.CALIBRATION, Part.SELECTION),
        (TEST, Part.REPORT, Part.GATE),
    )
    for window, low, high in windows:
        if window in thresholds:
            start, end = thresholds[window]
            inside = np.where(places < end, PARTS.index(low), PARTS.index(high))
            parts = np.where(times >= start, inside, parts).astype(np.uint8)
    return parts, thresholds


def _windows(
    digests: Digests, times: NDArray[np.float64], settings: SplitSettings
) -> dict[str, Thresholds]:
    """Return when the windows of test and validation rows begin, and what divides each in two.

    Content that is there several times is as old as its oldest row.
    """
    first = first_equal(digests)
    oldest = times.copy()
    np.minimum.at(oldest, first, times)
    is_first = first == np.arange(len(first))
    digests, oldest = digests[is_first], oldest[is_first]
    known, counts = np.unique(oldest, return_counts=True)
    newest_first: list[float] = known[::-1].tolist()
    ((report, gate, calibration, selection),) = part_sizes([len(oldest)], settings)
    sizes = (report + gate, calibration + selection)
    cuts = _cut(counts[::-1].tolist(), list(accumulate(sizes)), [int(size > 0) for size in sizes])
    thresholds: dict[str, Thresholds] = {}
    after = 0
    for window, share, cut in zip((TEST, VALIDATION), (_HALF, _QUARTER), cuts, strict=True):
        if cut > after:
            start, newest = newest_first[cut - 1], newest_first[after]
            held_out = digests[(oldest >= start) & (oldest <= newest)]
            thresholds[window] = (start, split_in_two(held_out, settings.seed, share))
        after = cut
    return thresholds
