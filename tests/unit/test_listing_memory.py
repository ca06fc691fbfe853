"""Memory that a listed row takes, as it is allocated; `make bench-listings` tells of a million."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import chain
from typing import TypeVar

import numpy as np
import pytest

from automl.data.digest_index import digests
from automl.data.near_duplicates import find_near_duplicates
from automl.storage.objects import ObjectEntry, StoredObject
from automl.tracks.image.inspected import Inspected
from automl.tracks.image.listings import Listings
from automl.tracks.image.plan import fingerprint, make_plan
from automl.tracks.image.recipe import Recipe
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sources import SourceLocation, list_source

T = TypeVar("T")

ROWS = 20_000
LISTED, PLANNED = 260, 140  # bytes a row; measured: 237 at most, and 115
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class ManyFiles:
    """Store of many images in class folders, and of a manifest of them; it remembers nothing."""

    uri = "/data"

    def __init__(self) -> None:
        rows = (f"{key},{key.split('/')[1]}\n" for key in self.keys())
        self._manifest = StoredObject(f"path,label\n{''.join(rows)}".encode(), "", NOW)

    @staticmethod
    def keys() -> Iterator[str]:
        return (f"images/class-{row // 1000:02d}/{row:07d}.jpg" for row in range(ROWS))

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectEntry]:
        for row, key in enumerate(chain(self.keys(), ["rows.csv"])):
            if key.startswith(prefix) and key > start_after:
                yield ObjectEntry(key, 1000 + row, NOW, f"3e8-{10**18 + row:x}-{10**18 + row:x}")

    def get(self, key: str) -> StoredObject:
        assert key == "rows.csv"
        return self._manifest

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        return self.get(key).data[start : start + size_bytes]


def bytes_a_row(make: Callable[[], T]) -> tuple[T, float]:
    """Return what is made, and the most that was allocated meanwhile."""
    tracemalloc.start()
    try:
        made = make()
        return made, tracemalloc.get_traced_memory()[1] / ROWS
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", ["images", "rows.csv"])
def test_a_listed_row_takes_little_memory(key: str) -> None:
    store = ManyFiles()
    request = ImageRequest("many", store, key, image_size=8)

    def listed() -> Listings:
        listing = Listings.of(list_source(SourceLocation(store, key)))
        fingerprint(request, listing, {})
        return listing

    listed()  # what is loaded once is loaded now
    listing, size_bytes = bytes_a_row(listed)

    assert len(listing) == ROWS
    assert not listing.findings
    assert size_bytes < LISTED


def test_a_planned_row_takes_little_memory() -> None:
    store = ManyFiles()
    request = ImageRequest("many", store, "images", image_size=8)
    listing = Listings.of(list_source(request.location))
    names = digests((blake2b(b"%d" % row, digest_size=32).digest() for row in range(ROWS)), 32)
    inspected = Inspected(np.arange(ROWS), names, {})
    recipe = Recipe.of(request, (8, ""), {})
    nothing = find_near_duplicates(
        np.zeros(0, np.uint64), lambda _: np.zeros((0, 8, 8, 3), np.uint8)
    )

    plan, size_bytes = bytes_a_row(
        lambda: make_plan(request, listing, inspected, recipe, lambda _: nothing)
    )

    assert len(plan.rows) == ROWS
    assert size_bytes < PLANNED
