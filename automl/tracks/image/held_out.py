"""Parts of a snapshot's rows: those of the source as it is split, those of an own test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from automl.data.assignment import Assignment, SplitRows, assign_parts
from automl.data.findings import Finding, FindingKind
from automl.data.snapshot import QuarantinedRow
from automl.data.splits import OWN_TEST_SET, Part, Thresholds, position, split_in_two
from automl.data.times import read_times
from automl.domain.specification import Split
from automl.errors import DataError, Problem
from automl.tracks.image.inspected import Inspected
from automl.tracks.image.listings import Listings
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sources import SourceRow

_HALF = 0.5  # of the rows of an own test set are the report's
_TEST_PARTS = frozenset({Part.GATE, Part.REPORT})
_BY_COLUMN = frozenset({Split.GROUP, Split.TIME})


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows with their parts.

    Attributes:
        rows: indices in the listing, in the order that they were given in.
        parts: of each.
        thresholds: what decided, and is to decide about rows to come.
        left_out: rows that can be in no part.
    """

    rows: tuple[int, ...]
    parts: tuple[Part, ...]
    thresholds: dict[str, Thresholds]
    left_out: tuple[QuarantinedRow, ...]


def check_times(request: ImageRequest, listing: Listings) -> None:
    """Check the times of a split by time before any image is read.

    Raises:
        DataError: some are none, or they are of several kinds; the problems list rows.
    """
    if request.split is Split.TIME:
        rows = [row for row in listing.source.rows if not row.problem]
        read_times([row.value for row in rows], [row.path for row in rows], "data.time")


def without_copies_of_tests(
    listing: Listings, inspected: Sequence[Inspected], rows: Sequence[int]
) -> tuple[list[int], list[QuarantinedRow]]:
    """Return the rows to keep, and the source's whose pixels a row of the own test set has."""
    tests: dict[str, str] = {}
    for index in rows:
        if listing.is_test(index):
            tests.setdefault(inspected[index].digest, listing.rows[index].path)
    kept, left_out = [], []
    for index in rows:
        path = tests.get(inspected[index].digest)
        if path is None or listing.is_test(index):
            kept.append(index)
        else:
            reason = f"the same picture is in data.test_source: {path}"
            left_out.append(QuarantinedRow(path=listing.rows[index].path, reason=reason))
    return kept, sorted(left_out, key=lambda row: row.path)


def refuse_unknown_labels(request: ImageRequest, listing: Listings, rows: Sequence[int]) -> None:
    """Refuse an own test set with labels that no usable row of the source has.

    Raises:
        DataError: there are some; the problems list them.
    """
    known = {listing.rows[index].label for index in rows if not listing.is_test(index)}
    unknown: dict[str, list[str]] = {}
    for index in rows:
        if listing.is_test(index) and listing.rows[index].label not in known:
            unknown.setdefault(listing.rows[index].label, []).append(listing.rows[index].path)
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
    request: ImageRequest, listing: Listings, inspected: Sequence[Inspected], rows: Sequence[int]
) -> HeldOut:
    """Return the parts of usable rows.

    Raises:
        DataError: a row's time is none.
    """
    source = [index for index in rows if not listing.is_test(index)]
    told = [listing.rows[index] for index in source]
    assignment = assign_parts(
        SplitRows(
            names=[row.path for row in told],
            digests=[inspected[index].digest for index in source],
            labels=[row.label for row in told],
            values=[row.value for row in told],
        ),
        request.split_settings,
        request.thresholds,
    )
    tests = {index: inspected[index].digest for index in rows if listing.is_test(index)}
    halves, end = _halves(request, tests)
    parts = {**dict(zip(source, assignment.parts, strict=True)), **halves}
    kept = [(index, part) for index in rows if (part := parts[index]) is not None]
    return HeldOut(
        rows=tuple(index for index, _ in kept),
        parts=tuple(part for _, part in kept),
        thresholds={**assignment.thresholds, **end},
        left_out=tuple(_left_out(request, told, assignment)),
    )


def _halves(
    request: ImageRequest, tests: Mapping[int, str]
) -> tuple[dict[int, Part], dict[str, Thresholds]]:
    """Return the part of each row of an own test set, and the threshold between both."""
    if not tests:
        return {}, {}
    fixed = (request.thresholds or {}).get(OWN_TEST_SET)
    end = fixed[0] if fixed else split_in_two([*tests.values()], request.seed, _HALF)
    return {
        index: Part.REPORT if position(digest, request.seed) < end else Part.GATE
        for index, digest in tests.items()
    }, {OWN_TEST_SET: (end,)}


def _left_out(
    request: ImageRequest, told: Sequence[SourceRow], assignment: Assignment
) -> Iterator[QuarantinedRow]:
    """Yield the rows that are left out since another part has the same picture, and why."""
    column = request.split.value
    for index, twin in sorted(assignment.twins.items(), key=lambda pair: told[pair[0]].path):
        row, other, part = told[index], told[twin], assignment.parts[twin]
        assert part is not None
        reason = (
            f"its {column} {row.value} is held out, and the same picture {other.path} of {column} "
            f"{other.value} is in {part.value}"
        )
        yield QuarantinedRow(path=row.path, reason=reason)


def class_findings(
    request: ImageRequest, labels: Sequence[str], parts: Sequence[Part]
) -> Iterator[Finding]:
    """Yield the classes without training rows, and those without test rows.

    The latter only where nothing balances the test rows: in an own test set, or by a column.
    """
    classes = sorted(set(labels))
    trained, tested = (
        {label for label, part in zip(labels, parts, strict=True) if part in wanted}
        for wanted in ({Part.TRAIN}, _TEST_PARTS)
    )
    lacking = [label for label in classes if label not in trained]
    if lacking:
        text = f"{len(lacking):,} classes have no training rows, so that nothing predicts them"
        yield Finding.of(FindingKind.UNTRAINED_CLASSES, text, lacking, len(lacking))
    lacking = [label for label in classes if label not in tested]
    has_tests = request.test is not None or (request.split in _BY_COLUMN and request.test_fraction)
    if has_tests and lacking:
        text = f"{len(lacking):,} classes have no test rows, so that no metric is about them"
        yield Finding.of(FindingKind.UNTESTED_CLASSES, text, lacking, len(lacking))
