"""Reading the rows of listings on workers: each file once, and only if it has changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from automl.data.dask import Runner
from automl.data.files import SnapshotStore
from automl.data.ledger import Ledger, digests, place_of, state_of
from automl.data.splits import Part
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
    unreadable,
)
from automl.tracks.image.plan import Plan
from automl.tracks.image.recipe import Recipe

CHUNK_ROWS = 512
CHUNK_BYTES = 64 * 2**20  # of the rows' files; a task holds a few of them at a time
IMAGE_BYTES = 16 * 2**20  # of a block's images, which a task holds twice
KEPT_ROWS = 2048  # files of held-out rows in one block
KEPT_BYTES = 64 * 2**20


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

    def inspect(self) -> tuple[Ledger, list[Inspected]]:
        """Read the rows that are in a state that is not known, and return what all of them hold."""
        rows, names = self.listing.rows, self.listing.names
        problems = [unreadable(row, self.recipe.most_pixels) for row in rows]
        states = digests(
            state_of(name, row.size_bytes, row.etag) for name, row in zip(names, rows, strict=True)
        )
        ledger = Ledger.read(self.store, self._rows_prefix)
        unknown = (ledger.find(states) < 0).tolist()
        changed = [is_new and not why for is_new, why in zip(unknown, problems, strict=True)]
        if any(changed):
            ledger = self._read(ledger, changed, problems)
        return ledger, _inspected(ledger, ledger.find(states).tolist(), problems)

    def _read(self, ledger: Ledger, changed: Sequence[bool], problems: list[str]) -> Ledger:
        """Read rows on workers, and return the ledger afterwards; note what cannot be read."""
        most = min(CHUNK_ROWS, max(1, IMAGE_BYTES // (3 * self.recipe.size**2)))
        chunks = list(self._chunks(range(len(changed)), changed, ChunkLimits(most, CHUNK_BYTES)))
        results = self.workers.map(
            read_rows,
            ((self._read_task(ledger, chunk), len(chunk)) for chunk in chunks),
            total=sum(changed),
            what="reading rows",
        )
        for chunk, result in zip(chunks, results, strict=True):
            for index, problem in result.problems.items():
                problems[chunk[index]] = problem
        return ledger.with_pages(self._rows_prefix, (r.page for r in results if r.page))

    def _read_task(self, ledger: Ledger, chunk: Sequence[int]) -> ReadTask:
        rows, names = self.listing.rows, self.listing.names
        states = tuple(state_of(names[i], rows[i].size_bytes, rows[i].etag) for i in chunk)
        places = tuple(place_of(names[i]) for i in chunk)
        return ReadTask(
            chunk=RowChunk.of(*self.listing.place(chunk)),
            states=states,
            places=places,
            candidates=tuple(
                ledger.candidates(place, rows[i].size_bytes)
                for place, i in zip(places, chunk, strict=True)
            ),
            recipe=self.recipe,
            store=self.store,
            prefix=self._rows_prefix,
        )

    def _chunks(
        self, rows: Sequence[int], changed: Sequence[bool], limits: ChunkLimits
    ) -> Iterator[list[int]]:
        """Yield chunks of those of some rows that have changed; each is of one source.

        Args:
            rows: indices in the listing.
            changed: which of them those are.
            limits: of a chunk.
        """
        for is_test in (False, True):
            places = [at for at, row in enumerate(rows) if self.listing.is_test(row) == is_test]
            sizes = [self.listing.rows[rows[at]].size_bytes for at in places]
            for chunk in cut_changed(sizes, [changed[at] for at in places], limits):
                yield [rows[places[index]] for index in chunk]

    def keep_files(self, plan: Plan, ledger: Ledger) -> Ledger:
        """Keep the files of held-out rows that are not kept yet, and return where all are.

        Raises:
            DataError: one has changed since it was read.
        """
        known = ledger.contents
        files = Ledger.read(self.store, self._files_prefix)
        row_of = {
            known[content].tobytes(): row
            for row, content, part in zip(plan.rows, plan.contents, plan.parts, strict=True)
            if part is not Part.TRAIN
        }
        wanted = sorted(row_of)
        content_of = {row: content for content, row in row_of.items()}
        missing = (files.locate(digests(wanted)) < 0).tolist()
        if not any(missing):
            return files
        limits = ChunkLimits(KEPT_ROWS, KEPT_BYTES)
        chunks = self._chunks([row_of[content] for content in wanted], missing, limits)

        def task(chunk: Sequence[int]) -> KeepTask:
            contents = tuple(content_of[row] for row in chunk)
            rows = RowChunk.of(*self.listing.place(chunk))
            return KeepTask(rows, contents, self.store, self._files_prefix)

        pages = self.workers.map(
            keep_files,
            ((task(chunk), len(chunk)) for chunk in chunks),
            total=sum(missing),
            what="keeping held-out files",
        )
        return files.with_pages(self._files_prefix, pages)


def _inspected(ledger: Ledger, found: Sequence[int], problems: Sequence[str]) -> list[Inspected]:
    """Return the findings about each row from where its content is known, or why it is not."""
    reasons = ledger.problems
    digest = ledger.fact("digest") if len(ledger.contents) else np.zeros((0, 32), np.uint8)
    rows = []
    for content, problem in zip(found, problems, strict=True):
        why = problem or reasons.get(content, "")
        rows.append(Inspected("" if why else digest[content].tobytes().hex(), content, why))
    return rows
