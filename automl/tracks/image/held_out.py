"""Parts of a snapshot's rows: those of the source as it is split, those of an own test set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automl.data.assignment import LEFT_OUT, Assignment, SplitRows, assign_parts
from automl.data.digest_index import DigestIndex
from automl.data.findings import Finding, FindingKind
from automl.data.snapshot import QuarantinedRow
from automl.data.splits import (
    OWN_TEST_SET,
    PARTS,
    Part,
    Parts,
    Thresholds,
    positions,
    split_in_two,
)
from automl.data.texts import Coded
from automl.data.times import read_times
from automl.domain.specification import Split
from automl.errors import DataError, Problem
from automl.tracks.image.inspected import Inspected
from automl.tracks.image.listings import Listings
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.source_rows import SourceRows

_HALF = 0.5  # of the rows of an own test set are the report's
_TEST_PARTS = (Part.GATE, Part.REPORT)
_BY_COLUMN = frozenset({Split.GROUP, Split.TIME})


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Rows with their parts.

    Attributes:
        rows: int64 `[n]`, indices in the listing, in the order that they were given in.
        parts: uint8 `[n]`, places in `PARTS`.
        thresholds: what decided, and is to decide about rows to come.
        left_out: rows that can be in no part.
    """

    rows: NDArray[np.int64]
    parts: Parts
    thresholds: dict[str, Thresholds]
    left_out: tuple[QuarantinedRow, ...]


def check_times(request: ImageRequest, listing: Listings) -> None:
    """Check the times of a split by time before any image is read.

    Raises:
        DataError: some are none, or they are of several kinds; the problems list rows.
    """
    if request.split is Split.TIME:
        source = listing.source.rows
        is_there = np.ones(len(source), np.bool_)
        is_there[list(source.problems)] = False
        rows = source.take(np.flatnonzero(is_there))
        read_times(rows.values, rows.paths, "data.time")


def without_copies_of_tests(
    listing: Listings, inspected: Inspected, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[QuarantinedRow]]:
    """Return the rows to keep, and the source's whose pixels a row of the own test set has."""
    is_test = listing.are_tests(rows)
    if not is_test.any():
        return rows, []
    tests = rows[is_test]
    found = DigestIndex(inspected.digests_of(tests)).find(inspected.digests_of(rows))
    is_copy = (found >= 0) & ~is_test
    left_out = []
    for index, test in zip(rows[is_copy].tolist(), tests[found[is_copy]].tolist(), strict=True):
        reason = f"the same picture is in data.test_source: {listing.path(test)}"
        left_out.append(QuarantinedRow(path=listing.path(index), reason=reason))
    return rows[~is_copy], sorted(left_out, key=lambda row: row.path)


def refuse_unknown_labels(
    request: ImageRequest, listing: Listings, rows: NDArray[np.int64]
) -> None:
    """Refuse an own test set with labels that no usable row of the source has.

    Raises:
        DataError: there are some; the problems list them.
    """
    is_test, labels = listing.are_tests(rows), listing.labels
    known = np.unique(labels.codes[rows[~is_test]])
    tests = rows[is_test]
    unknown: dict[str, list[str]] = {}
    for index in tests[~np.isin(labels.codes[tests], known)].tolist():
        unknown.setdefault(labels[index], []).append(listing.path(index))
    if unknown:
        assert request.test_location is not None
        raise DataError(
            f"{request.test_location.uri} has {len(unknown)} labels that no usable row of "
            f"{request.location.uri} has.",
            "correct the labels of data.test_source, remove these rows, or add such rows to "
            "data.source",
            [
                Problem(label, f"{len(paths):,} rows of data.test_source, such as {paths[0]}")
                for label, paths in sorted(unknown.items())
            ],
        )


def hold_out(
    request: ImageRequest, listing: Listings, inspected: Inspected, rows: NDArray[np.int64]
) -> HeldOut:
    """Return the parts of usable rows.

    Raises:
        DataError: a row's time is none.
    """
    is_test = listing.are_tests(rows)
    source, tests = rows[~is_test], inspected.digests_of(rows[is_test])
    assignment = assign_parts(
        SplitRows(
            names=listing.source.rows.paths.take(source),
            digests=inspected.digests_of(source),
            labels=listing.labels.take(source),
            values=listing.source.rows.values.take(source),
        ),
        request.split_settings,
        request.thresholds,
    )
    halves, end = _halves(request, tests)
    parts = np.empty(len(rows), np.uint8)
    parts[~is_test], parts[is_test] = assignment.parts, halves
    is_kept = parts != LEFT_OUT
    return HeldOut(
        rows=rows[is_kept],
        parts=parts[is_kept],
        thresholds={**assignment.thresholds, **end},
        left_out=tuple(_left_out(request, listing.source.rows, source, assignment)),
    )


def _halves(request: ImageRequest, tests: NDArray[np.uint8]) -> tuple[Parts, dict[str, Thresholds]]:
    """Return the part of each row of an own test set, and the threshold between both.

    Args:
        request: what the study says.
        tests: digests of these rows.
    """
    if not len(tests):
        return np.zeros(0, np.uint8), {}
    fixed = (request.thresholds or {}).get(OWN_TEST_SET)
    end = fixed[0] if fixed else split_in_two(tests, request.seed, _HALF)
    report, gate = PARTS.index(Part.REPORT), PARTS.index(Part.GATE)
    is_report = positions(tests, request.seed) < end
    return np.where(is_report, report, gate).astype(np.uint8), {OWN_TEST_SET: (end,)}


def _left_out(
    request: ImageRequest, listed: SourceRows, rows: NDArray[np.int64], assignment: Assignment
) -> Iterator[QuarantinedRow]:
    """Yield the rows that are left out since another part has the same picture, and why."""
    column, twins = request.split.value, assignment.twins
    for index in sorted(twins, key=lambda index: listed.paths[int(rows[index])]):
        row, other = listed[int(rows[index])], listed[int(rows[twins[index]])]
        part = PARTS[assignment.parts[twins[index]]]
        reason = (
            f"its {column} {row.value} is held out, and the same picture {other.path} of {column} "
            f"{other.value} is in {part.value}"
        )
        yield QuarantinedRow(path=row.path, reason=reason)


def class_findings(request: ImageRequest, labels: Coded, parts: Parts) -> Iterator[Finding]:
    """Yield the classes without training rows, and those without test rows.

    The latter only where nothing balances the test rows: in an own test set, or by a column.
    """
    lacking = _lacking(labels, parts, [Part.TRAIN])
    if lacking:
        text = f"{len(lacking):,} classes have no training rows, so that nothing predicts them"
        yield Finding.of(FindingKind.UNTRAINED_CLASSES, text, lacking, len(lacking))
    lacking = _lacking(labels, parts, _TEST_PARTS)
    has_tests = request.test is not None or (request.split in _BY_COLUMN and request.test_fraction)
    if has_tests and lacking:
        text = f"{len(lacking):,} classes have no test rows, so that no metric is about them"
        yield Finding.of(FindingKind.UNTESTED_CLASSES, text, lacking, len(lacking))


def _lacking(labels: Coded, parts: Parts, wanted: Sequence[Part]) -> list[str]:
    """Return the classes without a row in some parts, sorted."""
    is_wanted = np.isin(parts, [PARTS.index(part) for part in wanted])
    counts = Coded(labels.names, labels.codes[is_wanted]).counts
    return [name for name, count in zip(labels.names, counts.tolist(), strict=True) if not count]
