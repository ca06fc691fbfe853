"""Reading the rows of listings on workers: each file once, and only if it has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from automl.data.dask import Runner
from automl.data.digest_index import Digests, digests, last_of_each
from automl.data.files import SnapshotStore
from automl.data.ledger import Ledger, place_of, state_of
from automl.data.splits import PARTS, Part
from automl.data.texts import each
from automl.domain.layout import DatasetKeys
from automl.errors import DataError
from automl.tracks.image.chunks import ChunkLimits, cut_changed
from automl.tracks.image.inspected import Inspected
from automl.tracks.image.listings import Listings
from automl.tracks.image.passes import (
    KeepTask,
    ReadTask,
    RowChunk,
    keep_files,
    read_rows,
    unreadable_rows,
)
from automl.tracks.image.plan import Plan
from automl.tracks.image.recipe import Recipe

CHUNK_ROWS = 512
CHUNK_BYTES = 64 * 2**20  # of the rows' files; a task holds a few of them at a time
IMAGE_BYTES = 16 * 2**20  # of a block's images, which a task holds twice
KEPT_ROWS = 2048  # files of held-out rows in one block
KEPT_BYTES = 16 * 2**20  # which a task holds up to four times


@dataclass(frozen=True, slots=True)
class Reading:
    """Reading of all rows of a dataset's sources.

    Attributes:
        dataset: the dataset's name.
        listing: the rows.
        recipe: what becomes of an image.
        store: where snapshots are.
        workers: do the work.
    """

    dataset: str
    listing: Listings
    recipe: Recipe
    store: SnapshotStore
    workers: Runner

    @property
    def _rows_prefix(self) -> str:
        return DatasetKeys(self.dataset).rows(self.recipe.name)

    @property
    def _files_prefix(self) -> str:
        return DatasetKeys(self.dataset).files

    @contextmanager
    def nothing_left_of_refused_data(self) -> Iterator[None]:
        """Remove what was stored in the block if the data turn out to be of no use.

        What a call stores that was stopped, or that the store failed, the next one goes on with.
        """
        prefixes = (self._rows_prefix, self._files_prefix)
        before = {entry.key for prefix in prefixes for entry in self.store.list(prefix)}
        try:
            yield
        except DataError:
            for prefix in prefixes:
                for entry in list(self.store.list(prefix)):
                    if entry.key not in before:
                        self.store.delete(entry.key)
            raise

    def inspect(self) -> tuple[Ledger, Inspected]:
        """Read the rows that are in a state that is not known, and return what all of them hold."""
        problems = self._unreadable()
        states = self._states()
        ledger = Ledger.read(self.store, self._rows_prefix)
        changed = ledger.find(states) < 0
        changed[list(problems)] = False
        if changed.any():
            ledger = self._read(ledger, changed, problems)
        return ledger, _inspected(ledger, ledger.find(states), problems)

    def _unreadable(self) -> dict[int, str]:
        """Return why rows need not be read at all, by their index."""
        found: dict[int, str] = {}
        for listing, indices in zip(self.listing.both, self.listing.ranges, strict=False):
            problems = unreadable_rows(listing.rows, self.recipe.most_pixels)
            found |= {indices[place]: problem for place, problem in problems.items()}
        return found

    def _states(self) -> Digests:
        """Return the states of all rows, uint8 `[n, 16]`."""
        etags = chain.from_iterable(listing.rows.etags for listing in self.listing.both)
        told = zip(self.listing.names(), each(self.listing.sizes), etags, strict=True)
        return digests(state_of(*row) for row in told)

    def _read(self, ledger: Ledger, changed: NDArray[np.bool_], problems: dict[int, str]) -> Ledger:
        """Read rows on workers, and return the ledger afterwards; note what cannot be read."""
        most = min(CHUNK_ROWS, max(1, IMAGE_BYTES // (3 * self.recipe.size**2)))
        every = np.arange(len(changed))
        chunks = list(self._chunks(every, changed, ChunkLimits(most, CHUNK_BYTES)))
        results = self.workers.map(
            read_rows,
            ((self._read_task(ledger, chunk.tolist()), len(chunk)) for chunk in chunks),
            total=int(changed.sum()),
            what="reading rows",
        )
        for chunk, result in zip(chunks, results, strict=True):
            for index, problem in result.problems.items():
                problems[int(chunk[index])] = problem
        return ledger.with_pages(self._rows_prefix, (r.page for r in results if r.page))

    def _read_task(self, ledger: Ledger, chunk: Sequence[int]) -> ReadTask:
        listing, indices = self.listing.place(chunk)
        rows = RowChunk.of(listing, indices)
        names = [self.listing.name(index) for index in chunk]
        places = tuple(map(place_of, names))
        told = list(zip(names, places, rows.rows, strict=True))
        return ReadTask(
            chunk=rows,
            states=tuple(state_of(name, row.size_bytes, row.etag) for name, _, row in told),
            places=places,
            candidates=tuple(ledger.candidates(place, row.size_bytes) for _, place, row in told),
            recipe=self.recipe,
            store=self.store,
            prefix=self._rows_prefix,
        )

    def _chunks(
        self, rows: NDArray[np.int64], changed: NDArray[np.bool_], limits: ChunkLimits
    ) -> Iterator[NDArray[np.int64]]:
        """Yield chunks of those of some rows that have changed; each is of one source.

        Args:
            rows: indices in the listing.
            changed: which of them those are.
            limits: of a chunk.

        Yields:
            Places in `rows`.
        """
        is_test = self.listing.are_tests(rows)
        for places in (np.flatnonzero(~is_test), np.flatnonzero(is_test)):
            sizes = self.listing.sizes[rows[places]]
            for chunk in cut_changed(sizes, changed[places], limits):
                yield places[chunk]

    def keep_files(self, plan: Plan, ledger: Ledger) -> Ledger:
        """Keep the files of held-out rows that are not kept yet, and return where all are.

        Raises:
            DataError: one has changed since it was read.
        """
        files = Ledger.read(self.store, self._files_prefix)
        held_out = np.flatnonzero(plan.parts != PARTS.index(Part.TRAIN))
        contents = ledger.contents[plan.contents[held_out]]
        kept = last_of_each(contents)  # rows with equal content share a file
        rows, contents = plan.rows[held_out][kept], contents[kept]
        missing = files.locate(contents) < 0
        if not missing.any():
            return files
        limits = ChunkLimits(KEPT_ROWS, KEPT_BYTES)

        def task(chunk: NDArray[np.int64]) -> KeepTask:
            held = RowChunk.of(*self.listing.place(rows[chunk].tolist()))
            of_chunk = tuple(content.tobytes() for content in contents[chunk])
            return KeepTask(held, of_chunk, self.store, self._files_prefix)

        pages = self.workers.map(
            keep_files,
            ((task(chunk), len(chunk)) for chunk in self._chunks(rows, missing, limits)),
            total=int(missing.sum()),
            what="keeping held-out files",
        )
        return files.with_pages(self._files_prefix, pages)


def _inspected(ledger: Ledger, found: NDArray[np.int64], problems: Mapping[int, str]) -> Inspected:
    """Return the findings about each row from where its content is known, or why it is not."""
    reasons = ledger.problems
    bad = np.flatnonzero(np.isin(found, list(reasons))).tolist()
    digest = ledger.fact("digest") if len(ledger.contents) else np.zeros((0, 32), np.uint8)
    return Inspected(found, digest, {**{row: reasons[int(found[row])] for row in bad}, **problems})
