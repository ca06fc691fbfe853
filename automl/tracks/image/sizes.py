"""The side of a snapshot's images: as the study says, or chosen from the sizes of its images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from automl.data.digest_index import digests, sort_keys
from automl.data.ledger import place_of
from automl.data.texts import each
from automl.tracks.image.decode import longer_side
from automl.tracks.image.listings import Listings
from automl.tracks.image.passes import fetched, unreadable_rows
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sizing import BASE_SIZE, FoundRows, choose_image_size
from automl.tracks.image.sources import Listing

MOST_LOOKED_AT = 512  # images: the median of more differs little


def image_size(request: ImageRequest, listing: Listings) -> tuple[int, str]:
    """Return the side of the snapshot's images in pixels, and the reason for it.

    Args:
        request: what the study says, and what its generation has fixed.
        listing: its rows, of which some of the source's are looked at where nothing is fixed.
    """
    if isinstance(request.image_size, int):
        return request.image_size, "set by data.image_size"
    if request.fixed_size is not None:
        return request.fixed_size, "auto: what the first run of this generation has chosen"
    source = listing.source
    learnt = 1 - request.validation_fraction - request.test_fraction
    rows = FoundRows(
        longer_sides=_longer_sides(source, request.max_pixels) or [BASE_SIZE],
        images=len(listing),
        training=max(1, round(learnt * len(source.rows))),
        classes=max(2, len(source.rows.labels.sorted().names)),
    )
    return choose_image_size(rows, request.search)


def _longer_sides(source: Listing, most_pixels: int) -> list[int]:
    """Return the longer sides of some images, of which their names decide."""
    if source.pixels is not None:
        return [max(source.pixels.shape[1:3])] * len(source.rows)
    return [*islice(_sides(source, most_pixels), MOST_LOOKED_AT)]


def _sides(source: Listing, most_pixels: int) -> Iterator[int]:
    """Yield the longer sides of images, in an order that their names decide."""
    unreadable = unreadable_rows(source.rows, most_pixels)
    (places,) = sort_keys(digests(map(place_of, source.rows.keys), 8))
    order = each(np.argsort(places, kind="stable"))
    rows = (source.rows[row] for row in order if row not in unreadable)
    for data in fetched(source.store, rows):
        side = longer_side(data, most_pixels) if isinstance(data, bytes) else None
        if side is not None:
            yield side
