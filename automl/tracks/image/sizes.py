"""The side of a snapshot's images: as the study says, or chosen from the sizes of its images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from automl.data.ledger import place_of
from automl.tracks.image.decode import longer_side
from automl.tracks.image.passes import fetched, unreadable
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sources import Listing

MAX_AUTO_SIZE = 64
SIZE_STEP = 8
MOST_LOOKED_AT = 512  # images: the median of more differs little


def image_size(request: ImageRequest, listing: Listing) -> tuple[int, str]:
    """Return the side of the snapshot's images in pixels, and the reason for it.

    Args:
        request: what the study says, and what its generation has fixed.
        listing: its rows, of which some are looked at where nothing is fixed.
    """
    if isinstance(request.image_size, int):
        return request.image_size, "set by data.image_size"
    if request.fixed_size is not None:
        return request.fixed_size, "auto: what the first run of this generation has chosen"
    if listing.pixels is not None:
        return choose_image_size([max(listing.pixels.shape[1:3])], 0)
    sides: list[int] = []
    for side in _sides(listing, request.max_pixels):
        sides.append(side)
        if len(sides) == MOST_LOOKED_AT:
            return choose_image_size(sides, len(listing.rows))
    return choose_image_size(sides or [MAX_AUTO_SIZE], 0)


def _sides(listing: Listing, most_pixels: int) -> Iterator[int]:
    """Yield the longer sides of images, in an order that their names decide."""
    rows = [row for row in listing.rows if not unreadable(row, most_pixels)]
    rows.sort(key=lambda row: place_of(row.key))
    for data in fetched(listing.store, rows):
        side = longer_side(data, most_pixels) if isinstance(data, bytes) else None
        if side is not None:
            yield side


def choose_image_size(longer_sides: Sequence[int], of_rows: int) -> tuple[int, str]:
    """Return the side of the snapshot's images in pixels, and the reason for it.

    Args:
        longer_sides: of images, in pixels.
        of_rows: how many rows there are, if not all were looked at; else 0.
    """
    median = statistics.median(longer_sides)
    rounded = max(SIZE_STEP, math.floor(median / SIZE_STEP + 0.5) * SIZE_STEP)
    size = min(rounded, MAX_AUTO_SIZE)
    sides = "the images' longer sides"
    if of_rows:
        sides = f"the longer sides of {len(longer_sides)} of the {of_rows:,} images"
    reason = f"auto: the median of {sides} is {median:g} pixels, "
    if rounded > MAX_AUTO_SIZE:
        return size, reason + f"and auto goes up to {MAX_AUTO_SIZE}"
    return size, reason + f"rounded to a multiple of {SIZE_STEP}"
