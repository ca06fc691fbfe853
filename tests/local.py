"""Preparation in the test's own process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from automl.data.dask import LocalWorkers
from automl.data.files import OnProgress
from automl.data.ledger import Page, place_of, state_of
from automl.storage.memory import MemoryObjectStore
from automl.tracks.image.decode import MOST_PIXELS
from automl.tracks.image.passes import ReadTask, RowChunk, read_rows, unreadable
from automl.tracks.image.recipe import Recipe
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sources import Listing


def unseen(done: int, total: int, what: str) -> None:
    """Show no progress."""


def here(on_progress: OnProgress = unseen) -> LocalWorkers:
    """Return what runs all tasks in this process."""
    return LocalWorkers(1, on_progress, list, ExitStack())


def reading(listing: Listing, indices: Sequence[int], most_pixels: int = MOST_PIXELS) -> ReadTask:
    """Return the task to read some rows."""
    rows = [listing.rows[index] for index in indices]
    request = ImageRequest("test", MemoryObjectStore(), "", max_pixels=most_pixels)
    return ReadTask(
        chunk=RowChunk.of(listing, indices),
        states=tuple(state_of(str(n), row.size_bytes, row.etag) for n, row in enumerate(rows)),
        places=tuple(place_of(str(n)) for n in range(len(rows))),
        candidates=((),) * len(rows),
        recipe=Recipe.of(request, (8, ""), {}),
        store=MemoryObjectStore(),
        prefix="rows/",
    )


def problems_of(listing: Listing, most_pixels: int = MOST_PIXELS) -> list[str]:
    """Return why each row cannot be used, "" if it can; the rows are read."""
    problems = [unreadable(row, most_pixels) for row in listing.rows]
    left = [index for index, problem in enumerate(problems) if not problem]
    if not left:
        return problems
    found = read_rows(reading(listing, left, most_pixels))
    for at, problem in found.problems.items():
        problems[left[at]] = problem
    if found.page:
        page = Page.from_bytes(found.page, "page")
        why = {page.contents[at].tobytes(): reason for at, reason in page.problems.items()}
        read = (index for at, index in enumerate(left) if at not in found.problems)
        for index, content in zip(read, page.seen.contents, strict=True):
            problems[index] = why.get(content.tobytes(), "")
    return problems
