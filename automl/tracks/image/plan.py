"""The decisions about a snapshot, as functions of what the first pass found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.data.canonical import hash_list
from automl.data.corrections import Applied
from automl.data.digest_index import sort_keys
from automl.data.findings import Finding, similar_labels
from automl.data.snapshot import ExcludedRow, QuarantinedRow
from automl.data.splits import PARTS, Part, Parts, Thresholds
from automl.data.texts import Coded, each
from automl.domain.specification import SmallClasses, Split
from automl.errors import DataError, Problem
from automl.tracks.image.held_out import (
    HeldOut,
    class_findings,
    hold_out,
    refuse_unknown_labels,
    without_copies_of_tests,
)
from automl.tracks.image.inspected import Inspected
from automl.tracks.image.listings import Listings
from automl.tracks.image.look_alikes import FindNear, without_look_alikes
from automl.tracks.image.recipe import Recipe
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.resize import resize_graph
from automl.tracks.image.source_rows import SourceRows
from automl.tracks.image.sources import Listing

MIN_CLASS_ROWS = 3
_ANY_SIZE = 8  # pixels of a graph that stands for those of all sizes
_TOO_SMALL = f"fewer than {MIN_CLASS_ROWS}, and data.small_classes is drop"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A snapshot before it is built; rows are the usable ones, sorted by digest, label and path.

    Attributes:
        id: of the snapshot.
        rows: int64 `[n]`, indices in the listing.
        contents: int64 `[n]`, indices in the ledger.
        digests: uint8 `[n, 32]`, of the pixels.
        labels: of the rows; the names are the classes.
        parts: uint8 `[n]`, places in `PARTS`.
        thresholds: what decided about these.
        quarantined: rows that are left out.
        excluded: rows that are left out since they show nearly what others do.
        findings: what is odd about the source.
        recipe: what becomes of an image.
    """

    id: str
    rows: NDArray[np.int64]
    contents: NDArray[np.int64]
    digests: NDArray[np.uint8]
    labels: Coded
    parts: Parts
    thresholds: dict[str, Thresholds]
    quarantined: tuple[QuarantinedRow, ...]
    excluded: tuple[ExcludedRow, ...]
    findings: tuple[Finding, ...]
    recipe: Recipe


# long: all decisions, in their order
def make_plan(
    request: ImageRequest,
    listing: Listings,
    inspected: Inspected,
    recipe: Recipe,
    find_near: FindNear,
) -> Plan:
    """Return the snapshot that the rows make.

    Args:
        request: what the study says of the dataset.
        listing: the rows.
        inspected: what was found in each.
        recipe: what becomes of an image.
        find_near: returns which rows show nearly the same, given their contents.

    Raises:
        DataError: too many rows are unusable, or the rest cannot be learnt from.
    """
    quarantined = _quarantine(request, listing, inspected)
    rows, copies = without_copies_of_tests(listing, inspected, _usable(listing, inspected))
    refuse_unknown_labels(request, listing, rows)
    rows, small = _without_small_classes(request, listing, rows)
    held = hold_out(request, listing, inspected, rows)
    distinct = without_look_alikes(listing, held, inspected.contents[held.rows], find_near)
    held = distinct.held
    labels = listing.labels.take(held.rows).sorted()
    digests = inspected.digests_of(held.rows)
    _check_classes(request, labels.take(np.flatnonzero(~listing.are_tests(held.rows))))
    _check_parts(request, held.parts, digests, len(distinct.excluded))
    of_labels = similar_labels(labels.names), class_findings(request, labels, held.parts)
    named = ((bytes(row).hex(), label) for row, label in zip(digests, labels, strict=True))
    return Plan(
        id=_id(request, named, held, _applied(listing.source), recipe),
        rows=held.rows,
        contents=inspected.contents[held.rows],
        digests=digests,
        labels=labels,
        parts=held.parts,
        thresholds=held.thresholds,
        quarantined=(*quarantined, *copies, *small, *held.left_out),
        excluded=distinct.excluded,
        findings=(*listing.findings, *distinct.findings, *chain(*of_labels)),
        recipe=recipe,
    )


def _id(
    request: ImageRequest,
    rows: Iterator[tuple[str, str]],
    held: HeldOut,
    applied: Sequence[object],
    recipe: Recipe,
) -> str:
    """Return what names the content of a snapshot: digests and labels, and what is made of them.

    Where they do not decide about the parts, the parts are named, too.
    """
    is_by_rows = request.split in {Split.STRATIFIED, Split.RANDOM} and request.test is None
    parts = [] if is_by_rows else [(PARTS[part] for part in each(held.parts))]
    settings = asdict(request.split_settings)
    content = [rows, held.thresholds, *applied, settings, dict(recipe.versions), *parts]
    return hash_list(content)[:20]


def _usable(listing: Listings, inspected: Inspected) -> NDArray[np.int64]:
    """Return the indices of the rows that can be used, sorted by digest, label and path."""
    usable = inspected.usable
    labels = listing.labels.take(usable).sorted()
    keys: list[NDArray[Any]] = [labels.codes, *sort_keys(inspected.digests_of(usable))]
    order = np.lexsort(tuple(keys))
    rows, is_equal = usable[order], np.ones(max(0, len(usable) - 1), np.bool_)
    for key in keys:
        ordered = key[order]
        is_equal &= ordered[1:] == ordered[:-1]
    edges = np.flatnonzero(np.diff(is_equal, prepend=False, append=False))
    for start, end in edges.reshape(-1, 2).tolist():
        rows[start : end + 1] = sorted(rows[start : end + 1].tolist(), key=listing.path)
    return rows


def _without_small_classes(
    request: ImageRequest, listing: Listings, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[QuarantinedRow]]:
    """Return the rows to keep, and those of classes that are too small and may be left out.

    Rows of an own test set go with their class, and do not count.
    """
    labels = listing.labels
    counts = labels.take(rows[~listing.are_tests(rows)]).counts
    is_kept = counts[labels.codes[rows]] >= MIN_CLASS_ROWS
    if request.small_classes is SmallClasses.STOP or is_kept.all():
        return rows, []
    left_out = []
    for index in rows[~is_kept].tolist():
        label = labels[index]
        reason = f"its class {label} has {counts[labels.codes[index]]} usable rows: {_TOO_SMALL}"
        left_out.append(QuarantinedRow(path=listing.path(index), reason=reason))
    return rows[is_kept], sorted(left_out, key=lambda row: row.path)


def fingerprint(request: ImageRequest, listing: Listings, versions: Mapping[str, str]) -> str:
    """Return what names a listing together with everything else the snapshot depends on."""
    thresholds = request.thresholds
    fixed = None if thresholds is None else {name: list(t) for name, t in thresholds.items()}
    settings = asdict(request.split_settings) | {
        "image_size": request.size_settings,
        "max_bad_fraction": request.max_bad_fraction,
        "max_pixels": request.max_pixels,
        "small_classes": request.small_classes,
        "thresholds": fixed,
        "graph": hashlib.sha256(_graph(_ANY_SIZE, request)).hexdigest(),
    }
    rows = chain.from_iterable(_told(one.rows) for one in listing.both)
    tests = [] if listing.test is None else [len(listing.test.rows)]
    return hash_list([settings, dict(versions), rows, *tests, *_applied(listing.source)])


def _told(rows: SourceRows) -> Iterator[list[object]]:
    """Yield what a fingerprint names of each row."""
    columns = (rows.paths, rows.labels, each(rows.sizes), rows.etags, rows.values)
    for place, (path, label, size_bytes, etag, value) in enumerate(zip(*columns, strict=True)):
        problem = rows.problems.get(place, "")
        yield [path, label, size_bytes, etag, problem, *filter(None, [value])]


def _graph(size: int, request: ImageRequest) -> bytes:
    return bytes(resize_graph(size, request.resize).SerializeToString(deterministic=True))


def _applied(listing: Listing) -> list[list[Applied]]:
    """Return what corrections add to what an id hashes: nothing where there are none."""
    return [sorted(listing.applied, key=repr)] if listing.applied else []


def _quarantine(
    request: ImageRequest, listing: Listings, inspected: Inspected
) -> tuple[QuarantinedRow, ...]:
    """Return the rows that cannot be used; each source may have its own share of them.

    Raises:
        DataError: a source has more.
    """
    found: list[QuarantinedRow] = []
    for indices, location in zip(
        listing.ranges, (request.location, request.test_location), strict=True
    ):
        bad = [
            QuarantinedRow(path=listing.path(index), reason=inspected.problems[index])
            for index in sorted(inspected.problems)
            if index in indices
        ]
        if location is not None and len(bad) > request.max_bad_fraction * len(indices):
            raise DataError(
                f"{len(bad)} of the {len(indices)} rows of {location.uri} cannot be used, "
                f"data.max_bad_fraction is {request.max_bad_fraction:g}.",
                "correct the rows below, or raise data.max_bad_fraction",
                [Problem(row.path, row.reason) for row in bad],
            )
        found += bad
    return tuple(found)


def _check_classes(request: ImageRequest, labels: Coded) -> None:
    counts = {
        n: count for n, count in zip(labels.names, labels.counts.tolist(), strict=True) if count
    }
    problems = [
        Problem(label, f"the class has {count} usable rows, it needs {MIN_CLASS_ROWS}")
        for label, count in sorted(counts.items())
        if count < MIN_CLASS_ROWS
    ]
    if len(counts) < 2:
        names = ", ".join(map(repr, counts)) or "none"
        problems.insert(
            0, Problem("", f"it needs two classes or more, the usable rows have {names}")
        )
    if problems:
        raise DataError(
            f"{request.location.uri} cannot be learnt from.",
            "add rows, merge classes, check the label column, or set data.small_classes to drop",
            problems,
        )


def _check_parts(
    request: ImageRequest, parts: Parts, digests: NDArray[np.uint8], excluded: int
) -> None:
    """Refuse rows that leave a part empty.

    Args:
        request: what the study says.
        parts: of the rows.
        digests: of their pixels.
        excluded: how many more are left out since they show nearly what others do.

    Raises:
        DataError: one is.
    """
    needed = [Part.TRAIN, Part.SELECTION]
    if request.test_fraction or request.test is not None:
        needed.append(Part.GATE)
    missing = [part.value for part in needed if PARTS.index(part) not in parts]
    if missing:
        different = len(np.unique(digests, axis=0))
        others = f"{excluded} more show nearly what held-out rows do, " if excluded else ""
        series = "keep pictures of a series together with data.split: group, " if excluded else ""
        raise DataError(
            f"The {len(parts)} rows of {request.location.uri} have {different} different images, "
            f"{others}which leave none for {', '.join(missing)}.",
            f"{series}add rows (or groups, or times), or change data.validation_fraction and "
            "data.test_fraction",
        )
