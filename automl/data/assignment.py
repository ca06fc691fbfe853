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

from automl.data.splits import (
    PARTS,
    Part,
    SplitSettings,
    Thresholds,
    end_below,
    part_of,
    part_sizes,
    position,
    split_in_two,
    split_rows,
)
from automl.data.times import read_times
from automl.domain.specification import Split

GROUPS = "groups"  # key of the thresholds between groups
TEST, VALIDATION = "test", "validation"  # keys of the windows of time
_HALF, _QUARTER = 0.5, 0.25  # report rows of test rows, calibration rows of validation rows


@dataclass(frozen=True, slots=True)
class SplitRows:
    """Rows to split.

    Attributes:
        names: for people.
        digests: of their content, hexadecimal.
        labels: what `stratified` counts by.
        values: groups or times, for a split by one; else not looked at.
    """

    names: Sequence[str]
    digests: Sequence[str]
    labels: Sequence[str]
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Parts of rows.

    Attributes:
        parts: of each row; None where it is left out.
        thresholds: what decided, and is to decide about rows to come.
        twins: for each row that is left out, the row with equal content that stays.
    """

    parts: Sequence[Part | None]
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
    kept = [None if index in twins else part for index, part in enumerate(parts)]
    return Assignment(kept, thresholds, twins)


def _straddling(digests: Sequence[str], parts: Sequence[Part]) -> dict[int, int]:
    """Return the rows whose content is nearer to training, too, and a row that has it there."""
    nearest: dict[str, int] = {}
    for index, digest in enumerate(digests):
        known = nearest.setdefault(digest, index)
        if PARTS.index(parts[index]) > PARTS.index(parts[known]):
            nearest[digest] = index
    return {
        index: nearest[digest]
        for index, digest in enumerate(digests)
        if parts[index] is not parts[nearest[digest]]
    }


# --- groups ---


def _by_group(
    rows: SplitRows, settings: SplitSettings, fixed: Mapping[str, Sequence[float]] | None
) -> tuple[list[Part], dict[str, Thresholds]]:
    """Return the part of each row's group, by the group's own position.

    Groups that have equal content when the thresholds are chosen are one from then on: their common
    position is recorded beside the thresholds.
    """
    groups = sorted(set(rows.values))
    if fixed is None:
        joined = _joined(rows.digests, rows.values, settings.seed)
        places = {group: joined.get(group, _place(group, settings.seed)) for group in groups}
        ends = _ends_between(rows, places, settings)
        recorded = {_record(group, settings.seed): (place,) for group, place in joined.items()}
        thresholds: dict[str, Thresholds] = {GROUPS: ends, **recorded}
    else:
        thresholds = {key: tuple(values) for key, values in fixed.items()}
        ends = thresholds[GROUPS]
        places = {}
        for group in groups:
            own = (_place(group, settings.seed),)
            (places[group],) = thresholds.get(_record(group, settings.seed), own)
    return [part_of(places[group], ends) for group in rows.values], thresholds


def _place(group: str, seed: int) -> float:
    return position(blake2b(group.encode(), digest_size=32).hexdigest(), seed)


def _record(group: str, seed: int) -> str:
    """Return the key under which a joined group's position is recorded; it does not tell names."""
    return blake2b(group.encode(), digest_size=16, key=str(seed).encode()[:64]).hexdigest()


def _joined(digests: Sequence[str], groups: Sequence[str], seed: int) -> dict[str, float]:
    """Return the common position of groups with equal content: that of the first by name."""
    above: dict[str, str] = {group: group for group in groups}

    def root(group: str) -> str:
        while above[group] != group:
            above[group] = group = above[above[group]]
        return group

    owner: dict[str, str] = {}
    for digest, group in zip(digests, groups, strict=True):
        first, second = sorted((root(owner.setdefault(digest, group)), root(group)))
        above[second] = first
    members: dict[str, list[str]] = defaultdict(list)
    for group in above:
        members[root(group)].append(group)
    return {
        group: _place(first, seed)
        for first, together in members.items()
        if len(together) > 1
        for group in together
    }


def _ends_between(
    rows: SplitRows, places: Mapping[str, float], settings: SplitSettings
) -> Thresholds:
    """Return ends that give the parts about as many rows as the fractions say, groups whole."""
    place_of = {d: places[group] for d, group in zip(rows.digests, rows.values, strict=True)}
    counts: dict[float, int] = defaultdict(int)
    for place in place_of.values():
        counts[place] += 1
    units = sorted(counts)
    (sizes,) = part_sizes([len(place_of)], settings)
    report, gate, calibration, selection = sizes
    cuts = _cut(
        [counts[unit] for unit in units],
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
) -> tuple[list[Part], dict[str, Thresholds]]:
    """Return the part of each row by its time: the newest are test rows, the oldest training rows.

    Within the windows of test and of validation rows, content decides as it does elsewhere.
    """
    times = read_times(rows.values, rows.names, "data.time")
    if fixed is None:
        thresholds = _windows(rows.digests, times, settings)
    else:
        thresholds = {key: tuple(values) for key, values in fixed.items()}
    return [
        _part_in_time(time, position(digest, settings.seed), thresholds)
        for digest, time in zip(rows.digests, times, strict=True)
    ], thresholds


def _part_in_time(time: float, place: float, thresholds: Mapping[str, Thresholds]) -> Part:
    windows = (
        (TEST, Part.REPORT, Part.GATE),
        (VALIDATION, Part.CALIBRATION, Part.SELECTION),
    )
    for window, low, high in windows:
        if window in thresholds:
            start, end = thresholds[window]
            if time >= start:
                return low if place < end else high
    return Part.TRAIN


def _windows(
    digests: Sequence[str], times: Sequence[float], settings: SplitSettings
) -> dict[str, Thresholds]:
    """Return when the windows of test and validation rows begin, and what divides each in two.

    Content that is there several times is as old as its oldest row.
    """
    oldest: dict[str, float] = {}
    for digest, time in zip(digests, times, strict=True):
        oldest[digest] = min(time, oldest.get(digest, time))
    counts: dict[float, int] = defaultdict(int)
    for time in oldest.values():
        counts[time] += 1
    newest_first = sorted(counts, reverse=True)
    ((report, gate, calibration, selection),) = part_sizes([len(oldest)], settings)
    sizes = (report + gate, calibration + selection)
    cuts = _cut(
        [counts[time] for time in newest_first],
        list(accumulate(sizes)),
        [int(size > 0) for size in sizes],
    )
    thresholds: dict[str, Thresholds] = {}
    after = 0
    for window, share, cut in zip((TEST, VALIDATION), (_HALF, _QUARTER), cuts, strict=True):
        if cut > after:
            inside = set(newest_first[after:cut])
            held_out = [digest for digest, time in oldest.items() if time in inside]
            end = split_in_two(held_out, settings.seed, share)
            thresholds[window] = (newest_first[cut - 1], end)
        after = cut
    return thresholds
