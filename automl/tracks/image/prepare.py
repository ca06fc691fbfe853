"""Building snapshots from sources of images, with Dask."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from PIL import features

from automl.data.dask import TaskRunner
from automl.data.files import SnapshotStore
from automl.data.ledger import Ledger, digests, place_of, state_of
from automl.data.prepared import find_prepared, find_snapshot, note_prepared
from automl.data.snapshot import write_envelope
from automl.data.splits import PARTS, Part
from automl.domain.layout import DatasetKeys, SnapshotKeys
from automl.errors import DataError
from automl.tracks.image.chunks import ChunkLimits, cut_changed
from automl.tracks.image.index import locate
from automl.tracks.image.passes import (
    KeepTask,
    ReadTask,
    RowChunk,
    keep_files,
    read_rows,
    unreadable,
)
from automl.tracks.image.plan import Inspected, Plan, fingerprint, make_plan
from automl.tracks.image.recipe import Recipe
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sizes import image_size
from automl.tracks.image.snapshot import ImageEnvelope
from automl.tracks.image.sources import Listing, list_source

CHUNK_ROWS = 512
CHUNK_BYTES = 64 * 2**20  # of the rows' files; a task holds a few of them at a time
IMAGE_BYTES = 16 * 2**20  # of a block's images, which a task holds twice
KEPT_ROWS = 2048  # files of held-out rows in one block
KEPT_BYTES = 64 * 2**20


def prepare_images(
    request: ImageRequest, store: SnapshotStore, workers: TaskRunner
) -> ImageEnvelope:
    """Return the envelope of the source's snapshot, `reused` if it existed already.

    Raises:
        DataError: the dataset cannot be used, or too many rows cannot; the problems say which.
    """
    listing = list_source(request.location)
    versions = _versions()
    name = fingerprint(request, listing, versions, request.thresholds)
    known = find_prepared(store, request.name, name, ImageEnvelope)
    if known is not None:
        return known
    size = image_size(request.image_size, listing, request.max_pixels)
    recipe = Recipe.of(size, request.max_pixels, versions)
    building = _Building(request, listing, recipe, store, workers)
    with building.nothing_left_of_refused_data():
        envelope = building.snapshot()
    for fixed in (request.thresholds, envelope.thresholds):
        note_prepared(store, envelope, fingerprint(request, listing, versions, fixed))
    return envelope


def _versions() -> dict[str, str]:
    return {
        "onnxruntime": version("onnxruntime"),
        "pillow": version("pillow"),
        "jpeg": f"{features.version('jpg')} turbo {features.version('libjpeg_turbo')}",
        "webp": str(features.version("webp")),
    }


@dataclass(frozen=True, slots=True)
class _Building:
    """Building of one snapshot.

    Attributes:
        request: what is asked for.
        listing: all rows of the source.
        recipe: what becomes of an image.
        store: where snapshots are.
        workers: do the work.
    """

    request: ImageRequest
    listing: Listing
    recipe: Recipe
    store: SnapshotStore
    workers: TaskRunner

    @property
    def _rows_prefix(self) -> str:
        return DatasetKeys(self.request.name).rows(self.recipe.name)

    @property
    def _files_prefix(self) -> str:
        return DatasetKeys(self.request.name).files

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

    def snapshot(self) -> ImageEnvelope:
        """Return the envelope of the snapshot, which is stored afterwards."""
        ledger, inspected = self._inspect()
        plan = make_plan(self.request, self.listing, inspected, self.recipe)
        found = find_snapshot(self.store, self.request.name, plan.id, ImageEnvelope)
        return self._build(plan, ledger) if found is None else found

    def _inspect(self) -> tuple[Ledger, list[Inspected]]:
        """Read the rows that are in a state that is not known, and return what all of them hold."""
        rows = self.listing.rows
        problems = [unreadable(row, self.request.max_pixels) for row in rows]
        states = digests(state_of(row.key or row.path, row.size_bytes, row.etag) for row in rows)
        ledger = Ledger.read(self.store, self._rows_prefix)
        unknown = (ledger.find(states) < 0).tolist()
        changed = [
            is_new and not problem for is_new, problem in zip(unknown, problems, strict=True)
        ]
        if any(changed):
            ledger = self._read(ledger, changed, problems)
        return ledger, _inspected(ledger, ledger.find(states).tolist(), problems)

    def _read(self, ledger: Ledger, changed: Sequence[bool], problems: list[str]) -> Ledger:
        """Read rows on workers, and return the ledger afterwards; note what cannot be read."""
        rows, recipe = self.listing.rows, self.recipe
        most = min(CHUNK_ROWS, max(1, IMAGE_BYTES // (3 * recipe.size**2)))
        limits = ChunkLimits(most, CHUNK_BYTES)
        chunks = list(cut_changed([row.size_bytes for row in rows], changed, limits))

        def task(chunk: list[int]) -> ReadTask:
            return ReadTask(
                chunk=RowChunk.of(self.listing, chunk),
                candidates=tuple(
                    ledger.candidates(place_of(rows[i].key or rows[i].path), rows[i].size_bytes)
                    for i in chunk
                ),
                recipe=recipe,
                store=self.store,
                prefix=self._rows_prefix,
            )

        results = self.workers.map(
            read_rows,
            ((task(chunk), len(chunk)) for chunk in chunks),
            total=sum(changed),
            what="reading rows",
        )
        for chunk, result in zip(chunks, results, strict=True):
            for index, problem in result.problems.items():
                problems[chunk[index]] = problem
        return ledger.with_pages(self._rows_prefix, (r.page for r in results if r.page))

    def _build(self, plan: Plan, ledger: Ledger) -> ImageEnvelope:
        keys = SnapshotKeys(self.request.name, plan.id)
        self.store.put(keys.preprocess, self.recipe.graph)
        files = self._keep_files(plan, ledger)
        located = locate(self.listing, plan, ledger, files)
        index = located.index.stored(self.store, keys)
        envelope = self._envelope(plan, ledger)
        stored = {"index": index, "blocks": located.blocks, "files": located.files}
        return write_envelope(self.store, envelope.model_copy(update=stored))

    def _keep_files(self, plan: Plan, ledger: Ledger) -> Ledger:
        """Keep the files of held-out rows that are not kept yet, and return where all are."""
        prefix, known = self._files_prefix, ledger.contents
        files = Ledger.read(self.store, prefix)
        row_of = {
            known[content].tobytes(): row
            for row, content, part in zip(plan.rows, plan.contents, plan.parts, strict=True)
            if part is not Part.TRAIN
        }
        wanted = sorted(row_of)
        missing = (files.locate(digests(wanted)) < 0).tolist()
        sizes = [self.listing.rows[row_of[content]].size_bytes for content in wanted]
        chunks = cut_changed(sizes, missing, ChunkLimits(KEPT_ROWS, KEPT_BYTES))

        def task(chunk: list[int]) -> KeepTask:
            contents = tuple(wanted[index] for index in chunk)
            rows = [row_of[content] for content in contents]
            return KeepTask(RowChunk.of(self.listing, rows), contents, self.store, prefix)

        if not any(missing):
            return files
        pages = self.workers.map(
            keep_files,
            ((task(chunk), len(chunk)) for chunk in chunks),
            total=sum(missing),
            what="keeping held-out files",
        )
        return files.with_pages(prefix, pages)

    def _envelope(self, plan: Plan, ledger: Ledger) -> ImageEnvelope:
        """Return the snapshot's envelope, but for where its rows are."""
        per_class: dict[str, Counter[Part]] = defaultdict(Counter)
        for label, part in zip(plan.labels, plan.parts, strict=True):
            per_class[label][part] += 1
        train = [c for c, part in zip(plan.contents, plan.parts, strict=True) if part is Part.TRAIN]
        mean, std = _normalisation(ledger, train, self.recipe.size)
        return ImageEnvelope(
            id=plan.id,
            dataset=self.request.name,
            classes=plan.classes,
            image_size=self.recipe.size,
            image_size_reason=self.recipe.size_reason,
            counts={part.value: plan.parts.count(part) for part in PARTS},
            counts_per_class={
                label: {part: per_class[label][part] for part in PARTS} for label in plan.classes
            },
            quarantined=plan.quarantined,
            findings=plan.findings,
            thresholds=plan.thresholds,
            versions=dict(self.recipe.versions),
            source=self.request.location.uri,
            mean=mean,
            std=std,
        )


def _inspected(ledger: Ledger, found: Sequence[int], problems: Sequence[str]) -> list[Inspected]:
    """Return the findings about each row from where its content is known, or why it is not."""
    reasons = ledger.problems
    digest = ledger.fact("digest") if len(ledger.contents) else np.zeros((0, 32), np.uint8)
    rows = []
    for content, problem in zip(found, problems, strict=True):
        why = problem or reasons.get(content, "")
        rows.append(Inspected("" if why else digest[content].tobytes().hex(), content, why))
    return rows


def _normalisation(
    ledger: Ledger, contents: Sequence[int], size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel over the training rows.

    The sums are integers, so that the order of the rows does not matter.
    """
    n = len(contents) * size * size
    totals = ledger.fact("sums")[list(contents)].sum(axis=0).tolist()
    squares = ledger.fact("squares")[list(contents)].sum(axis=0).tolist()
    mean = tuple(total / n for total in totals)
    std = tuple(
        math.sqrt(n * square - total * total) / n or 1.0
        for total, square in zip(totals, squares, strict=True)
    )
    return mean, std
