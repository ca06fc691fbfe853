"""Rows of all sources of a study: those of `data.source`, and of `data.test_source` after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from automl.data.digest_index import DigestIndex, first_equal
from automl.data.findings import Finding, FindingKind
from automl.data.names import readable
from automl.data.texts import Coded, Texts, each
from automl.tracks.image.corrected import corrected
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sources import Listing, list_source


@dataclass(frozen=True, slots=True, eq=False)
class Listings:
    """Rows of a source and of an own test set, counted through.

    Attributes:
        source: rows that trials learn from and are scored on, and those that are held out of them.
        test: rows of an own test set, if there is one.
        labels: of the rows of both.
        sizes: int64 `[n]`, bytes of the rows' files.
        findings: what is odd about them.
    """

    source: Listing
    test: Listing | None
    labels: Coded
    sizes: NDArray[np.int64]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, source: Listing, test: Listing | None = None) -> Listings:
        """Return the rows of both."""
        both = (source,) if test is None else (source, test)
        findings = [finding for listing in both for finding in listing.findings]
        labels, sizes = source.rows.labels, source.rows.sizes
        if test is not None:
            labels = labels.and_also(test.rows.labels)
            sizes = np.concatenate([sizes, test.rows.sizes])
        return cls(source, test, labels, sizes, (*findings, *_not_named(both)))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def both(self) -> tuple[Listing, ...]:
        """The source, and the own test set if there is one."""
        return (self.source,) if self.test is None else (self.source, self.test)

    def path(self, index: int) -> str:
        """Return how the source calls a row."""
        listing, (place,) = self.place([index])
        return listing.rows.paths[place]

    def paths(self, indices: NDArray[np.int64]) -> Texts:
        """Return how the sources call some rows."""
        if self.test is None:
            return self.source.rows.paths.take(indices)
        return Texts.of(map(self.path, each(indices)))

    def names(self) -> Iterator[str]:
        """Yield the names of all rows; no two are equal."""
        for listing in self.both:
            start = f"{listing.store.uri.rstrip('/')}/"
            for key, path in zip(listing.rows.keys, listing.rows.paths, strict=True):
                yield start + (key or path)

    def name(self, index: int) -> str:
        """Return the name of a row."""
        listing, (place,) = self.place([index])
        rows = listing.rows
        return f"{listing.store.uri.rstrip('/')}/{rows.keys[place] or rows.paths[place]}"

    def are_tests(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows are of the own test set."""
        return indices >= len(self.source.rows)

    @property
    def ranges(self) -> tuple[range, range]:
        """The indices of the source's rows, and of the own test set's."""
        first = len(self.source.rows)
        return range(first), range(first, len(self))

    def place(self, indices: Sequence[int]) -> tuple[Listing, list[int]]:
        """Return the listing that has all rows at `indices`, and their indices there."""
        first = len(self.source.rows)
        if indices[0] < first:
            return self.source, list(indices)
        assert self.test is not None
        return self.test, [index - first for index in indices]


def list_sources(request: ImageRequest) -> tuple[ImageRequest, Listings]:
    """Return the rows of all sources of a request, and the request that names both of them.

    A source may have a folder of test rows beside those of the others: then that is the test set.

    Raises:
        DataError: a source has no rows, or is not of a known form; corrections cannot be applied.
    """
    source = list_source(request.location)
    location = request.test_location
    test = None if location is None else list_source(location)
    if source.tests:
        request = replace(request, test=(request.source, source.test_folder), test_fraction=0.0)
        source, test = source.divided()
    return request, Listings.of(corrected(source, request.corrections), test)


def _not_named(listings: Sequence[Listing]) -> list[Finding]:
    """Return a finding about images beside manifests that are in no row of any of them."""
    places = np.concatenate([listing.beside.places for listing in listings])
    is_left = first_equal(places) == np.arange(len(places))
    for listing in listings:
        is_left &= DigestIndex(listing.named).find(places) < 0
    left = np.flatnonzero(is_left).tolist()
    if not left:
        return []
    text = f"{len(left):,} images are in no row of the manifest"
    shown = (readable(_shown(listings, place)) for place in left)
    return [Finding.of(FindingKind.IGNORED_FILES, text, shown, len(left))]


def _shown(listings: Sequence[Listing], place: int) -> str:
    """Return how people are shown an image, of those beside one listing after the other."""
    first, *others = listings
    beside = first.beside.shown
    return beside[place] if place < len(beside) else _shown(others, place - len(beside))
