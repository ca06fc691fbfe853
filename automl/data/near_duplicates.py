"""Rows that show nearly the same: pairs, clusters, and which rows of a split they concern.

Each row has a perceptual hash of 64 bits. Candidates are pairs whose hashes differ in at most six
bits. Of eight bytes at least two are then equal, so that every such pair meets in a bucket of rows
that share two given bytes; 28 tables have a bucket for each value of theirs. (Seven bands of which
one is equal would do, too, with buckets a hundred times as full.) A candidate is confirmed by the
root mean square of the differences of thumbnails; most are refuted by means over areas of them,
which cannot differ more. Nothing of n times n is ever made.

Dark, blank and flat pictures are all alike, and tell nothing of each other: two need some contrast,
beside which their differences must be small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_BITS = 6  # in which hashes of candidates differ
MOST_RMS = 10.0  # of 255, between thumbnails of 32 pixels
LEAST_CONTRAST = 8.0  # standard deviation of a thumbnail that tells something, of 255
MOST_OF_CONTRAST = 0.5  # RMS by the standard deviation of the two: a correlation of 7/8 or more
BUCKET_ROWS = 256  # of a bucket, with which each hash is compared
GROUP_ROWS = 16  # of one hash, which are compared with those of another
MOST_PAIRS = 1_000_000  # of different hashes
MOST_COPIES, MOST_OF_ROWS = 8, 0.1  # in a larger cluster, and part of all rows, are no copies
_BYTES = 8
_BLOCK = 256  # pairs of thumbnails at a time
_AREA = 8  # pixels of a thumbnail's side that are averaged to refute candidates
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of rows with similar hashes.

    Attributes:
        pairs: indices of rows, the smaller first, sorted [m, 2].
        capped: how many rows share their hash's bytes with so many others, such as blank images,
            that they were not compared with all of them.
    """

    pairs: Indices
    capped: int


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnails:
    """Thumbnails of some rows.

    Attributes:
        rows: indices of the rows, sorted [k].
        images: uint8 [k, ...]; may be a map of a file.
    """

    rows: Indices
    images: NDArray[np.uint8]

    def distances(self, pairs: Indices) -> NDArray[np.float64]:
        """Return the root mean square of the differences of pairs of rows [m]."""
        return rms(self.images, np.searchsorted(self.rows, pairs))


@dataclass(frozen=True, slots=True, eq=False)
class NearDuplicates:
    """Rows that show nearly the same.

    Attributes:
        pairs: indices of rows, the smaller first, sorted [m, 2].
        distances: root mean square of the thumbnails' differences, 0 to 255 [m].
        clusters: rows that pairs connect, directly or by others; sorted.
        thumbnails: of these rows at least.
        capped: how many rows were not compared with all rows that are candidates.
    """

    pairs: Indices
    distances: NDArray[np.float64]
    clusters: tuple[tuple[int, ...], ...]
    thumbnails: Thumbnails
    capped: int

    def series(self, rows: int) -> list[tuple[int, ...]]:
        """Return the clusters that are too large to be copies of one picture.

        Args:
            rows: how many there are in all.
        """
        most = max(MOST_COPIES, MOST_OF_ROWS * rows)
        return [cluster for cluster in self.clusters if len(cluster) > most]


class Straddler(NamedTuple):
    """A row that shows nearly what a row does that is asked about later.

    Attributes:
        row: its index.
        near: index of a row of its cluster, of those that are asked about last: the nearest one, or
            of those that only others connect it with the nearest of a few.
        distance: root mean square of the two thumbnails' differences.
    """

    row: int
    near: int
    distance: float


def exact_duplicates(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the rows that have equal digests, for each digest that is there more than once."""
    found: dict[str, list[int]] = {}
    for row, digest in enumerate(digests):
        found.setdefault(digest, []).append(row)
    return [tuple(rows) for rows in found.values() if len(rows) > 1]


def candidate_pairs(
    hashes: NDArray[np.uint64], most_bits: int = MOST_BITS, bucket_rows: int = BUCKET_ROWS
) -> Candidates:
    """Return the pairs of rows whose hashes differ in few bits.

    Where many rows have one hash, or a bucket has many hashes, a row is compared with those that
    follow it alone, in the order of rows or hashes. `Candidates.capped` counts such rows.

    Args:
        hashes: of the rows [n].
        most_bits: in which they may differ, at most `MOST_BITS`.
        bucket_rows: how many following ones that are.
    """
    assert most_bits <= MOST_BITS
    own, group, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    rows = np.argsort(group, kind="stable")
    same = _following(group[rows], bucket_rows)
    similar, is_large = _similar_hashes(own, most_bits, bucket_rows)
    others = _rows_of(similar, sizes)
    first, second = (rows[np.concatenate(each)] for each in zip(same, others, strict=True))
    pairs = np.stack([np.minimum(first, second), np.maximum(first, second)], axis=1)
    is_large |= sizes > bucket_rows + 1
    is_large[similar.ravel()] |= sizes[similar.ravel()] > GROUP_ROWS
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return Candidates(pairs[order], int(sizes[is_large].sum()))


def _following(keys: Indices, most: int) -> tuple[Indices, Indices]:
    """Return the places of pairs with equal keys that are at most so far apart.

    Args:
        keys: sorted [n].
        most: how far.
    """
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for places, step in _steps(keys, most):
        firsts.append(places)
        seconds.append(places + step)
    return np.concatenate(firsts), np.concatenate(seconds)


def _steps(keys: Indices, most: int) -> Iterator[tuple[Indices, int]]:
    """Yield the places whose keys are equal to those so many places later, and that number."""
    ends = np.searchsorted(keys, keys, side="right")
    places = np.arange(len(keys))
    for step in range(1, most + 1):
        places = places[places + step < ends[places]]
        if not places.size:
            return
        yield places, step


def _similar_hashes(
    hashes: NDArray[np.uint64], most_bits: int, most: int
) -> tuple[Indices, NDArray[np.bool_]]:
    """Return pairs of different hashes [m, 2], and which ones were not compared with all [n].

    Args:
        hashes: sorted, each once [n].
        most_bits: in which those of a pair differ.
        most: how many following ones of its bucket each is compared with.
    """
    n = len(hashes)
    bands = np.ascontiguousarray(hashes, ">u8").view(np.uint8).reshape(n, _BYTES)
    codes, fresh = np.zeros(0, np.int64), [np.zeros(0, np.int64)]
    is_large = np.zeros(n, np.bool_)
    for one, other in combinations(range(_BYTES), 2):
        keys = bands[:, one].astype(np.int64) << 8 | bands[:, other]
        order = np.argsort(keys, kind="stable")  # those of a bucket by their hashes
        keys, ordered = keys[order], hashes[order]
        is_large[order] |= np.bincount(keys, minlength=1 << 16)[keys] > most + 1
        for places, step in _steps(keys, most):
            near = places[np.bitwise_count(ordered[places] ^ ordered[places + step]) <= most_bits]
            fresh.append(order[near] * n + order[near + step])
        if sum(map(len, fresh)) > MOST_PAIRS:
            codes, fresh = np.unique(np.concatenate([codes, *fresh])), []
        if len(codes) > MOST_PAIRS:
            is_large[:] = True  # the tables that are left may have more
            break
    codes = np.unique(np.concatenate([codes, *fresh]))[:MOST_PAIRS]
    return np.stack([codes // max(n, 1), codes % max(n, 1)], axis=1), is_large


def _rows_of(similar: Indices, sizes: Indices) -> tuple[Indices, Indices]:
    """Return the pairs of rows that pairs of hashes stand for, some where many rows have a hash.

    Args:
        similar: pairs of hashes [m, 2].
        sizes: how many rows have each hash; rows are counted in the order of their hashes [n].
    """
    starts = np.cumsum(sizes) - sizes
    few = np.minimum(sizes, GROUP_ROWS)
    left, right = few[similar[:, 0]], few[similar[:, 1]]
    pairs = left * right
    which = np.repeat(np.arange(len(similar)), pairs)
    inside = np.arange(len(which)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    first = starts[similar[which, 0]] + inside // right[which]
    return first, starts[similar[which, 1]] + inside % right[which]


def find_near_duplicates(
    hashes: NDArray[np.uint64],
    thumbnails_of: Callable[[Indices], NDArray[np.uint8]],
    most_bits: int = MOST_BITS,
    most_rms: float = MOST_RMS,
) -> NearDuplicates:
    """Return the rows that show nearly the same.

    Args:
        hashes: of the rows [n].
        thumbnails_of: returns the thumbnails of rows [k] as uint8 [k, side, side, channels]; it is
            asked once, for the rows that are candidates.
        most_bits: in which the hashes of a pair may differ.
        most_rms: root mean square of the differences of their thumbnails.
    """
    candidates = candidate_pairs(hashes, most_bits)
    rows = np.unique(candidates.pairs)
    thumbnails = Thumbnails(rows, thumbnails_of(rows))
    pairs = candidates.pairs[_may_be_near(thumbnails, candidates.pairs, most_rms)]
    distances = thumbnails.distances(pairs)
    variances = _variances(thumbnails.images)[np.searchsorted(rows, pairs)].mean(axis=1)
    contrasts = np.sqrt(variances)
    is_near = distances <= np.minimum(most_rms, MOST_OF_CONTRAST * contrasts)
    is_near &= contrasts >= LEAST_CONTRAST
    pairs, distances = pairs[is_near], distances[is_near]
    return NearDuplicates(pairs, distances, clusters_of(pairs), thumbnails, candidates.capped)


def _may_be_near(thumbnails: Thumbnails, pairs: Indices, most_rms: float) -> NDArray[np.bool_]:
    """Return which pairs are near as far as sums over areas tell, which never refute a near one.

    The mean square of a set of numbers is at least the square of their mean.
    """
    sums = _area_sums(thumbnails.images)
    most = (most_rms * _AREA**2) ** 2 * sums.shape[1]  # of the squares of the sums' differences
    is_near = np.empty(len(pairs), np.bool_)
    for start in range(0, len(pairs), 64 * _BLOCK):
        one, other = np.searchsorted(thumbnails.rows, pairs[start : start + 64 * _BLOCK]).T
        differences = (sums[one] - sums[other]).astype(np.float64)
        squares = np.einsum("ij,ij->i", differences, differences)  # of integers: exact
        is_near[start : start + 64 * _BLOCK] = squares <= most
    return is_near


def _area_sums(images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the sums over areas of 8 by 8 pixels, by channel [k, areas]."""
    k, height, width, channels = images.shape
    assert height % _AREA == width % _AREA == 0
    sums = np.empty((k, height // _AREA, width // _AREA, channels), np.int32)
    for start in range(0, k, _BLOCK):
        part = images[start : start + _BLOCK]
        areas = part.reshape(-1, height // _AREA, _AREA, width // _AREA, _AREA, channels)
        sums[start : start + _BLOCK] = areas.sum(axis=(2, 4), dtype=np.int32)
    return sums.reshape(k, math.prod(sums.shape[1:]))


def _variances(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the variance of each picture's values [k]."""
    found, pixels = np.empty(len(images)), math.prod(images.shape[1:])
    for start in range(0, len(images), _BLOCK):
        values = images[start : start + _BLOCK].reshape(-1, pixels).astype(np.float64)
        sums, squares = values.sum(axis=1), np.einsum("ij,ij->i", values, values)  # exact
        found[start : start + _BLOCK] = (pixels * squares - sums * sums) / pixels**2
    return found


def rms(thumbnails: NDArray[np.uint8], pairs: Indices) -> NDArray[np.float64]:
    """Return the root mean square of the differences of pairs of thumbnails [m]."""
    found = np.empty(len(pairs))
    pixels = math.prod(thumbnails.shape[1:])
    for start in range(0, len(pairs), _BLOCK):
        one, other = pairs[start : start + _BLOCK].T
        differences = thumbnails[one].reshape(len(one), pixels).astype(np.float64)
        differences -= thumbnails[other].reshape(len(one), pixels)
        squares = np.einsum("ij,ij->i", differences, differences)  # of integers: exact
        found[start : start + _BLOCK] = np.sqrt(squares / pixels)
    return found


def clusters_of(pairs: Indices) -> tuple[tuple[int, ...], ...]:
    """Return the rows that pairs connect, each cluster sorted, and the clusters too."""
    roots: dict[int, int] = {}

    def root(row: int) -> int:
        path = [row]
        while (above := roots.setdefault(path[-1], path[-1])) != path[-1]:
            path.append(above)
        roots.update(dict.fromkeys(path, path[-1]))
        return path[-1]

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        roots[high] = low
    found: dict[int, list[int]] = {}
    for row in sorted(roots):
        found.setdefault(root(row), []).append(row)
    return tuple(map(tuple, found.values()))


def straddlers(found: NearDuplicates, levels: NDArray[np.int64]) -> list[Straddler]:
    """Return the rows of clusters that hold rows of a higher level too, in order.

    A row of a lower level would let a network learn what it is asked about later. A row never moves
    from one part of a split to another, so it is to be left out, and all of its cluster below the
    highest level: what is near to a row that is left out may be as near to the highest one. Series
    stay as they are: without them little would be left.

    Args:
        found: the near-duplicates.
        levels: of the rows; the higher, the later a row is asked about [n].
    """
    nearest = _nearest(found, levels)
    left_out = []
    series = set(found.series(len(levels)))
    for cluster in found.clusters:
        if cluster in series:
            continue
        rows = np.array(cluster)
        is_last = levels[rows] == levels[rows].max()
        some = rows[is_last][:GROUP_ROWS]
        for row in rows[~is_last].tolist():
            known = nearest.get(row)
            if known is None or levels[known.near] < levels[some[0]]:  # others connect the two
                pairs = np.stack([np.full(len(some), row), some], axis=1)
                distances = found.thumbnails.distances(pairs)
                place = int(distances.argmin())
                known = Straddler(row, int(some[place]), float(distances[place]))
            left_out.append(known)
    return sorted(left_out)


def _nearest(found: NearDuplicates, levels: NDArray[np.int64]) -> dict[int, Straddler]:
    """Return for rows the nearest one of the highest level that they make a pair with."""
    best: dict[int, Straddler] = {}
    for (one, other), distance in zip(found.pairs.tolist(), found.distances.tolist(), strict=True):
        for row, near in ((one, other), (other, one)):
            known = best.get(row)
            if known is None or (-levels[near], distance) < (-levels[known.near], known.distance):
                best[row] = Straddler(row, near, distance)
    return best
