"""The decisions about a snapshot, as functions of what the first pass found."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from automl.data.findings import Finding, similar_labels
from automl.data.profile import Distribution, Profile
from automl.data.snapshot import QuarantinedRow
from automl.data.splits import Part, Thresholds, split_rows
from automl.domain.specification import SmallClasses
from automl.errors import DataError, Problem
from automl.tracks.image.passes import Inspected
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.resize import resize_graph
from automl.tracks.image.sources import Listing
from automl.tracks.image.statistics import STATISTICS

MAX_AUTO_SIZE = 64
SIZE_STEP = 8
MIN_CLASS_ROWS = 3
_TOO_SMALL = f"fewer than {MIN_CLASS_ROWS}, and data.small_classes is drop"


@dataclass(frozen=True, slots=True)
class Plan:
    """A snapshot before it is built; rows are the usable ones."""

    id: str
    rows: tuple[int, ...]  # indices in the listing
    digests: tuple[str, ...]
    labels: tuple[str, ...]
    parts: tuple[Part, ...]
    classes: tuple[str, ...]
    thresholds: dict[str, Thresholds]
    quarantined: tuple[QuarantinedRow, ...]
    findings: tuple[Finding, ...]
    image_size: int
    image_size_reason: str
    graph: bytes
    versions: dict[str, str]
    profile: Profile


def make_plan(
    request: ImageRequest,
    listing: Listing,
    inspected: Sequence[Inspected],
    versions: Mapping[str, str],
) -> Plan:
    """Return the snapshot that the rows make.

    Raises:
        DataError: too many rows are unusable, or the rest cannot be learnt from.
    """
    quarantined = _quarantine(request, listing, inspected)
    rows, small = _without_small_classes(request, listing, _usable(listing, inspected))
    labels = tuple(listing.rows[index].label for index in rows)
    digests = tuple(inspected[index].digest for index in rows)
    _check_classes(request, labels)
    parts, thresholds = split_rows(digests, labels, request.split_settings, request.thresholds)
    _check_parts(request, parts, len(set(digests)))
    size, reason = choose_image_size(
        request.image_size, [max(inspected[i].height, inspected[i].width) for i in rows]
    )
    graph = resize_graph(size).SerializeToString(deterministic=True)
    versions = {**versions, "graph_sha256": hashlib.sha256(graph).hexdigest()}
    content = [list(zip(digests, labels, strict=True)), thresholds]
    return Plan(
        id=hash_json([*content, asdict(request.split_settings), versions])[:20],
        rows=tuple(rows),
        digests=digests,
        labels=labels,
        parts=tuple(parts),
        classes=tuple(sorted(set(labels))),
        thresholds=thresholds,
        quarantined=(*quarantined, *small),
        findings=(*listing.findings, *similar_labels(labels)),
        image_size=size,
        image_size_reason=reason,
        graph=graph,
        versions=versions,
        profile=_profile(inspected, rows, labels),
    )


def _profile(inspected: Sequence[Inspected], rows: Sequence[int], labels: Sequence[str]) -> Profile:
    """Return what the snapshot with these rows is compared with others by."""
    columns = zip(*(inspected[index].statistics for index in rows), strict=True)
    statistics = {
        name: Distribution.of(column, bins)
        for (name, bins), column in zip(STATISTICS.items(), columns, strict=True)
    }
    digests = [inspected[index].digest for index in rows]
    return Profile.of(len(inspected), digests, labels, statistics)


def _usable(listing: Listing, inspected: Sequence[Inspected]) -> list[int]:
    """Return the indices of the rows that can be used, in the order of the snapshot."""
    return sorted(
        (index for index, seen in enumerate(inspected) if not seen.problem),
        key=lambda i: (inspected[i].digest, listing.rows[i].label, listing.rows[i].path),
    )


def _without_small_classes(
    request: ImageRequest, listing: Listing, rows: Sequence[int]
) -> tuple[list[int], list[QuarantinedRow]]:
    """Return the rows to keep, and those of classes that are too small and may be left out."""
    counts = Counter(listing.rows[index].label for index in rows)
    kept, left_out = [], []
    for index in rows:
        row = listing.rows[index]
        if counts[row.label] >= MIN_CLASS_ROWS or request.small_classes is SmallClasses.STOP:
            kept.append(index)
        else:
            reason = f"its class {row.label} has {counts[row.label]} usable rows: {_TOO_SMALL}"
            left_out.append(QuarantinedRow(path=row.path, reason=reason))
    return kept, sorted(left_out, key=lambda row: row.path)


def fingerprint(
    request: ImageRequest,
    listing: Listing,
    versions: Mapping[str, str],
    thresholds: Mapping[str, Sequence[float]] | None,
) -> str:
    """Return what names a listing together with everything else the snapshot depends on."""
    fixed = None if thresholds is None else {name: list(t) for name, t in thresholds.items()}
    settings = asdict(request.split_settings) | {
        "image_size": request.image_size,
        "max_bad_fraction": request.max_bad_fraction,
        "max_pixels": request.max_pixels,
        "small_classes": request.small_classes,
        "thresholds": fixed,
        "graph": hashlib.sha256(resize_graph(SIZE_STEP).SerializeToString()).hexdigest(),
    }
    rows = [[row.path, row.label, row.size_bytes, row.etag, row.problem] for row in listing.rows]
    return hash_json([settings, dict(versions), rows])


def hash_json(value: object) -> str:
    """Return the SHA-256 of the value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def choose_image_size(
    wanted: Literal["auto"] | int, longer_sides: Sequence[int]
) -> tuple[int, str]:
    """Return the side of the snapshot's images in pixels, and the reason for it."""
    if isinstance(wanted, int):
        return wanted, "set by data.image_size"
    median = statistics.median(longer_sides)
    rounded = max(SIZE_STEP, math.floor(median / SIZE_STEP + 0.5) * SIZE_STEP)
    size = min(rounded, MAX_AUTO_SIZE)
    reason = f"auto: the median of the images' longer sides is {median:g} pixels, "
    if rounded > MAX_AUTO_SIZE:
        return size, reason + f"and auto goes up to {MAX_AUTO_SIZE}"
    return size, reason + f"rounded to a multiple of {SIZE_STEP}"


def _quarantine(
    request: ImageRequest, listing: Listing, inspected: Sequence[Inspected]
) -> tuple[QuarantinedRow, ...]:
    bad = tuple(
        QuarantinedRow(path=row.path, reason=seen.problem)
        for row, seen in zip(listing.rows, inspected, strict=True)
        if seen.problem
    )
    if len(bad) > request.max_bad_fraction * len(inspected):
        raise DataError(
            f"{len(bad)} of the {len(inspected)} rows of {request.location.uri} cannot be used, "
            f"data.max_bad_fraction is {request.max_bad_fraction:g}.",
            "correct the rows below, or raise data.max_bad_fraction",
            [Problem(row.path, row.reason) for row in bad],
        )
    return bad


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


def _check_parts(request: ImageRequest, parts: Sequence[Part], different: int) -> None:
    needed = [Part.TRAIN, Part.SELECTION]
    if request.test_fraction:
        needed.append(Part.GATE)
    missing = [part.value for part in needed if part not in parts]
    if missing:
        raise DataError(
            f"The {len(parts)} rows of {request.location.uri} have {different} different images, "
            f"which leave none for {', '.join(missing)}.",
            "add rows, or change data.validation_fraction and data.test_fraction",
        )
