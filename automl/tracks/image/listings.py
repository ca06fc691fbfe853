"""Rows of all sources of a study: those of `data.source`, and of `data.test_source` after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from automl.data.findings import Finding, FindingKind
from automl.data.names import readable
from automl.tracks.image.corrected import corrected
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sources import Listing, SourceRow, list_source


@dataclass(frozen=True, slots=True)
class Listings:
    """Rows of a source and of an own test set, counted through.

    Attributes:
        source: rows that trials learn from and are scored on, and those that are held out of them.
        test: rows of an own test set, if there is one.
        rows: of both.
        names: of the rows; no two are equal.
        findings: what is odd about them.
    """

    source: Listing
    test: Listing | None
    rows: tuple[SourceRow, ...]
    names: tuple[str, ...]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, source: Listing, test: Listing | None = None) -> Listings:
        """Return the rows of both."""
        both = (source,) if test is None else (source, test)
        rows = tuple(row for listing in both for row in listing.rows)
        findings = [finding for listing in both for finding in listing.findings]
        names = tuple(_place(each, row.key or row.path) for each in both for row in each.rows)
        return cls(source, test, rows, names, (*findings, *_unnamed(both)))

    def is_test(self, index: int) -> bool:
        """Return whether a row is one of the own test set."""
        return index >= len(self.source.rows)

    @property
    def ranges(self) -> tuple[range, range]:
        """The indices of the source's rows, and of the own test set's."""
        first = len(self.source.rows)
        return range(first), range(first, len(self.rows))

    def place(self, indices: Sequence[int]) -> tuple[Listing, list[int]]:
        """Return the listing that has all rows at `indices`, and their indices there."""
        if not self.is_test(indices[0]):
            return self.source, list(indices)
        assert self.test is not None
        return self.test, [index - len(self.source.rows) for index in indices]


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


def _unnamed(listings: Sequence[Listing]) -> list[Finding]:
    """Return a finding about images beside manifests that are in no row of any of them."""
    named = frozenset[str]().union(*(listing.named for listing in listings))
    others = {place: shown for listing in listings for place, shown in listing.unnamed.items()}
    left = [readable(shown) for place, shown in others.items() if place not in named]
    if not left:
        return []
    text = f"{len(left):,} images are in no row of the manifest"
    return [Finding.of(FindingKind.IGNORED_FILES, text, left, len(left))]


def _place(listing: Listing, key: str) -> str:
    return f"{listing.store.uri.rstrip('/')}/{key}"
