"""Look-alikes: rows of a snapshot that show nearly the same, told by what reading has noted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from automl.data.blocks import read_block
from automl.data.files import FileStore
from automl.data.findings import Finding, FindingKind
from automl.data.ledger import Ledger
from automl.data.near_duplicates import NearDuplicates, find_near_duplicates, straddlers
from automl.data.snapshot import ExcludedRow
from automl.data.splits import PARTS, Part
from automl.tracks.image.hashing import THUMBNAIL_SIDE
from automl.tracks.image.held_out import HeldOut
from automl.tracks.image.listings import Listings

FindNear: TypeAlias = Callable[[NDArray[np.int64]], NearDuplicates]

_READERS = 8  # files that are asked for at once
# The later a row is asked about, the higher: the final fit learns from what trials are scored on.
_LEVEL_OF = {Part.TRAIN: 0, Part.SELECTION: 1, Part.CALIBRATION: 2, Part.GATE: 3, Part.REPORT: 3}
_LEVELS = np.asarray([_LEVEL_OF[part] for part in PARTS])
_MANY = 0.05  # of the rows: so many look-alikes may come from series of pictures


def near_duplicates(
    store: FileStore, ledger: Ledger, contents: NDArray[np.int64]
) -> NearDuplicates:
    """Return which rows show nearly the same; thumbnails of candidates alone are read.

    Args:
        store: where snapshots are.
        ledger: what reading the rows has told.
        contents: indices in it, of the rows [n].

    Raises:
        NotFoundError, DamagedDataError: thumbnails cannot be read.
    """
    hashes = ledger.fact("hash")[contents]
    return find_near_duplicates(hashes, lambda rows: _thumbnails(store, ledger, contents[rows]))


def _thumbnails(store: FileStore, ledger: Ledger, contents: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the thumbnails of contents, uint8 `[k, 32, 32, 3]`, in a file without a name."""
    shape = (len(contents), THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    if not len(contents):
        return np.zeros(shape, np.uint8)
    with tempfile.TemporaryFile(prefix="automl-thumbnails-") as file:
        found = np.memmap(file, np.uint8, "w+", shape=shape)
    numbers, rows = ledger.block_numbers[contents], ledger.rows[contents]

    def read(number: int) -> None:
        block = ledger.previews[number]
        assert block is not None
        places = np.flatnonzero(numbers == number)
        found[places] = read_block(store, block)["thumbnails"][rows[places]]

    with ThreadPoolExecutor(_READERS) as pool:
        for _ in pool.map(read, np.unique(numbers).tolist()):
            pass
    return found


@dataclass(frozen=True, slots=True)
class Distinct:
    """Rows of which none shows nearly what a row does that is asked about later.

    Attributes:
        held: the rows with their parts.
        excluded: those that did.
        findings: about both.
    """

    held: HeldOut
    excluded: tuple[ExcludedRow, ...]
    findings: tuple[Finding, ...]


def without_look_alikes(
    listing: Listings, held: HeldOut, contents: NDArray[np.int64], find_near: FindNear
) -> Distinct:
    """Return the rows without those that show nearly what a row does that is asked about later.

    Args:
        listing: has the rows.
        held: the rows with their parts.
        contents: of the rows, indices in the ledger [n].
        find_near: returns which rows show nearly the same, given their contents.
    """
    near = find_near(contents)
    found = straddlers(near, _LEVELS[held.parts])
    series = [
        [listing.path(int(held.rows[row])) for row in cluster]
        for cluster in near.series(len(held.rows))
    ]
    excluded = [
        ExcludedRow(
            path=listing.path(int(held.rows[each.row])),
            label=listing.labels[int(held.rows[each.row])],
            part=PARTS[held.parts[each.row]].value,
            near=listing.path(int(held.rows[each.near])),
            near_part=PARTS[held.parts[each.near]].value,
            distance=round(each.distance, 4),
        )
        for each in found
    ]
    is_kept = np.ones(len(held.rows), np.bool_)
    is_kept[[each.row for each in found]] = False
    left = replace(held, rows=held.rows[is_kept], parts=held.parts[is_kept])
    excluded.sort(key=lambda row: row.path)
    findings = (*_left_out(excluded, len(held.rows)), *_series(series, len(held.rows)))
    return Distinct(left, tuple(excluded), findings)


def _left_out(excluded: Sequence[ExcludedRow], rows: int) -> Iterator[Finding]:
    if not excluded:
        return
    text = (
        f"{len(excluded):,} rows are left out, since they show nearly what rows do that are asked "
        "about later"
    )
    if len(excluded) > _MANY * rows:
        text += "; if pictures come in series, name their column with data.split: group"
    names = [f"{row.path} ({row.near})" for row in excluded]
    yield Finding.of(FindingKind.EXCLUDED_ROWS, text, names, len(excluded))


def _series(series: Sequence[Sequence[str]], rows: int) -> Iterator[Finding]:
    """Yield a finding about series of pictures, given the paths of each."""
    if not series:
        return
    count = sum(map(len, series))
    text = (
        f"{count:,} of {rows:,} rows look alike in series that are too large to leave out, and are "
        "in all parts, so that scores may flatter; name their column with data.split: group"
    )
    yield Finding.of(FindingKind.SERIES_OF_ROWS, text, [paths[0] for paths in series], count)
