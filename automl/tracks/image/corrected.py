"""Listings of images after a person's corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from automl.data.corrections import apply_corrections, load_corrections
from automl.data.files import FileStore
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
    kept = [index for index, label in enumerate(done.labels) if label is not None]
    rows = tuple(
        row if row.label == label else row.labelled(label)
        for row, label in zip(listing.rows, done.labels, strict=True)
        if label is not None
    )
    pixels = listing.pixels
    if pixels is not None and len(kept) < len(pixels):
        pixels = _kept(pixels, kept)
    findings = (*listing.findings, *done.findings)
    return replace(listing, rows=rows, pixels=pixels, findings=findings, applied=done.applied)


def _kept(pixels: NDArray[np.uint8], kept: Sequence[int]) -> NDArray[np.uint8]:
    """Return some images, moved to the front of the array, which may fill half of the memory."""
    for place, index in enumerate(kept):
        if place != index:
            pixels[place] = pixels[index]
    return pixels[: len(kept)]
