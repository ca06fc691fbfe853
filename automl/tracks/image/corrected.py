"""Listings of images after a person's corrections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from automl.data.corrections import apply_corrections, load_corrections
from automl.data.files import FileStore
from automl.data.texts import Coded
from automl.tracks.image.listing import label_problem
from automl.tracks.image.sources import Listing


def corrected(listing: Listing, place: tuple[FileStore, str] | None) -> Listing:
    """Return the rows that are left, with their new labels; the given listing is not used again.

    Args:
        listing: of the source.
        place: store and key of the corrections; None without any.

    Raises:
        DataError: the corrections cannot be read or applied; the problems say which, and why.
    """
    if place is None:
        return listing
    done = apply_corrections(listing.rows, load_corrections(*place))
    kept = np.asarray([row for row, label in enumerate(done.labels) if label is not None], np.int32)
    rows = listing.rows if len(kept) == len(listing.rows) else listing.rows.take(kept)
    labels = Coded.of(label for label in done.labels if label is not None)
    mended = {
        row
        for row in rows.problems
        if labels[row] != rows.labels[row] and rows.problems[row] == label_problem(rows.labels[row])
    }
    problems = {row: why for row, why in rows.problems.items() if row not in mended}
    rows = replace(rows, labels=labels, problems=problems)
    pixels = listing.pixels
    if pixels is not None and len(kept) < len(pixels):
        pixels = _kept(pixels, kept)
    findings = (*listing.findings, *done.findings)
    return replace(listing, rows=rows, pixels=pixels, findings=findings, applied=done.applied)


def _kept(pixels: NDArray[np.uint8], kept: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return some images, moved to the front of the array, which may fill half of the memory."""
    for place, index in enumerate(kept.tolist()):
        if place != index:
            pixels[place] = pixels[index]
    return pixels[: len(kept)]
