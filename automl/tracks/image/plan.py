"""The decisions about a snapshot, as functions of what the first pass found."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from automl.data.corrections import Applied
from automl.data.findings import Finding, similar_labels
from automl.data.snapshot import ExcludedRow, QuarantinedRow
from automl.data.splits import Part, Thresholds
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
from automl.tracks.image.sources import Listing

MIN_CLASS_ROWS = 3
_ANY_SIZE = 8  # pixels of a graph that stands for those of all sizes
_TOO_SMALL = f"fewer than {MIN_CLASS_ROWS}, and data.small_classes is drop"


@dataclass(frozen=True, slots=True)
class Plan:
    """A snapshot before it is built; rows are the usable ones."""

    id: str
    rows: tuple[int, ...]  # indices in the listing
    contents: tuple[int, ...]  # indices in the ledger
    digests: tuple[str, ...]
    labels: tuple[str, ...]
    parts: tuple[Part, ...]
    classes: tuple[str, ...]
    thresholds: dict[str, Thresholds]
    quarantined: tuple[QuarantinedRow, ...]
    excluded: tuple[ExcludedRow, ...]
    findings: tuple[Finding, ...]
    recipe: Recipe


def make_plan(
    request: ImageRequest,
    listing: Listings,
    inspected: Sequence[Inspected],
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
    contents = [inspected[index].content for index in held.rows]
    distinct = without_look_alikes(listing, held, contents, find_near)
    held, excluded = distinct.held, distinct.excluded
    labels = tuple(listing.rows[index].label for index in held.rows)
    digests = tuple(inspected[index].digest for index in held.rows)
    source = [index for index in held.rows if not listing.is_test(index)]
    _check_classes(request, [listing.rows[index].label for index in source])
    _check_parts(request, held.parts, len(set(digests)), len(excluded))
    named = list(zip(digests, labels, strict=True))
    return Plan(
        id=_id(request, named, held, _applied(listing.source), recipe),
        rows=held.rows,
        contents=tuple(inspected[index].content for index in held.rows),
        digests=digests,
        labels=labels,
        parts=held.parts,
        classes=tuple(sorted(set(labels))),
        thresholds=held.thresholds,
        quarantined=(*quarantined, *copies, *small, *held.left_out),
        excluded=excluded,
        findings=(
            *listing.findings,
            *distinct.findings,
            *similar_labels(labels),
            *class_findings(request, labels, held.parts),
        ),
        recipe=recipe,
    )


def _id(
    request: ImageRequest,
    rows: Sequence[tuple[str, str]],
    held: HeldOut,
    applied: Sequence[object],
    recipe: Recipe,
) -> str:
    """Return what names the content of a snapshot: digests and labels, and what is made of them.

    Where they do not decide about the parts, the parts are named, too.
    """
    is_by_rows = request.split in {Split.STRATIFIED, Split.RANDOM} and request.test is None
    parts = [] if is_by_rows else [list(held.parts)]
    settings = asdict(request.split_settings)
    content = [list(rows), held.thresholds, *applied, settings, dict(recipe.versions), *parts]
    return hash_json(content)[:20]


def _usable(listing: Listings, inspected: Sequence[Inspected]) -> list[int]:
    """Return the indices of the rows that can be used, in the order of the snapshot."""
    return sorted(
        (index for index, seen in enumerate(inspected) if not seen.problem),
        key=lambda i: (inspected[i].digest, listing.rows[i].label, listing.rows[i].path),
    )


def _without_small_classes(
    request: ImageRequest, listing: Listings, rows: Sequence[int]
) -> tuple[list[int], list[QuarantinedRow]]:
    """Return the rows to keep, and those of classes that are too small and may be left out.

    Rows of an own test set go with their class, and do not count.
    """
    counts = Counter(listing.rows[index].label for index in rows if not listing.is_test(index))
    kept, left_out = [], []
    for index in rows:
        row = listing.rows[index]
        if counts[row.label] >= MIN_CLASS_ROWS or request.small_classes is SmallClasses.STOP:
            kept.append(index)
        else:
            reason = f"its class {row.label} has {counts[row.label]} usable rows: {_TOO_SMALL}"
            left_out.append(QuarantinedRow(path=row.path, reason=reason))
    return kept, sorted(left_out, key=lambda row: row.path)


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
    rows = [
        [row.path, row.label, row.size_bytes, row.etag, row.problem, *filter(None, [row.value])]
        for row in listing.rows
    ]
    tests = [] if listing.test is None else [len(listing.test.rows)]
    return hash_json([settings, dict(versions), rows, *tests, *_applied(listing.source)])


def _graph(size: int, request: ImageRequest) -> bytes:
    return bytes(resize_graph(size, request.resize).SerializeToString(deterministic=True))


def _applied(listing: Listing) -> list[list[Applied]]:
    """Return what corrections add to what an id hashes: nothing where there are none."""
    return [sorted(listing.applied, key=repr)] if listing.applied else []


def hash_json(value: object) -> str:
    """Return the SHA-256 of the value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _quarantine(
    request: ImageRequest, listing: Listings, inspected: Sequence[Inspected]
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
            QuarantinedRow(path=listing.rows[index].path, reason=inspected[index].problem)
            for index in indices
            if inspected[index].problem
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


def _check_classes(request: ImageRequest, labels: Sequence[str]) -> None:
    counts = Counter(labels)
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
    request: ImageRequest, parts: Sequence[Part], different: int, excluded: int
) -> None:
    needed = [Part.TRAIN, Part.SELECTION]
    if request.test_fraction or request.test is not None:
        needed.append(Part.GATE)
    missing = [part.value for part in needed if part not in parts]
    if missing:
        others = f"{excluded} more show nearly what held-out rows do, " if excluded else ""
        series = "keep pictures of a series together with data.split: group, " if excluded else ""
        raise DataError(
            f"The {len(parts)} rows of {request.location.uri} have {different} different images, "
            f"{others}which leave none for {', '.join(missing)}.",
            f"{series}add rows (or groups, or times), or change data.validation_fraction and "
            "data.test_fraction",
        )
