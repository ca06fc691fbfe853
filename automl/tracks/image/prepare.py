"""Building snapshots from sources of images, with Dask."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from PIL import features

from automl.data.dask import Workers
from automl.data.files import SnapshotStore
from automl.data.prepared import find_prepared, find_snapshot, note_prepared
from automl.data.snapshot import write_envelope
from automl.data.splits import PARTS, Part
from automl.domain.layout import SnapshotKeys
from automl.tracks.image.corrected import corrected
from automl.tracks.image.passes import (
    BuiltShard,
    Inspected,
    RowChunk,
    ShardTask,
    build_shard,
    inspect_rows,
)
from automl.tracks.image.plan import Plan, fingerprint, make_plan
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.snapshot import ImageEnvelope
from automl.tracks.image.sources import Listing, list_source

CHUNK_ROWS = 256
SHARD_ROWS = 2048
SHARD_BYTES = 64 * 2**20  # of its images: each thread that writes one holds them twice
SHARD_FILE_BYTES = 64 * 2**20  # of the encoded files that validation and test shards keep


def prepare_images(request: ImageRequest, store: SnapshotStore, workers: Workers) -> ImageEnvelope:
    """Return the envelope of the source's snapshot, `reused` if it existed already.

    Raises:
        DataError: the dataset cannot be used, or too many rows cannot; the problems say which.
    """
    listing = corrected(list_source(request.location), request.corrections)
    versions = _versions()
    name = fingerprint(request, listing, versions, request.thresholds)
    known = find_prepared(store, request.name, name, ImageEnvelope)
    if known is not None:
        return known
    plan = make_plan(request, listing, _inspect(request, listing, workers), versions)
    envelope = find_snapshot(store, request.name, plan.id, ImageEnvelope)
    if envelope is None:
        envelope = _build(request, store, listing, plan, workers)
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


def _inspect(request: ImageRequest, listing: Listing, workers: Workers) -> list[Inspected]:
    total = len(listing.rows)
    chunks = (range(start, min(start + CHUNK_ROWS, total)) for start in range(0, total, CHUNK_ROWS))
    results = workers.map(
        inspect_rows,
        ((RowChunk.of(listing, chunk, request.max_pixels), len(chunk)) for chunk in chunks),
        total=total,
        what="reading rows",
    )
    return [seen for result in results for seen in result]


def _build(
    request: ImageRequest,
    store: SnapshotStore,
    listing: Listing,
    plan: Plan,
    workers: Workers,
) -> ImageEnvelope:
    keys = SnapshotKeys(request.name, plan.id)
    index_of = {label: index for index, label in enumerate(plan.classes)}
    store.put(keys.preprocess, plan.graph)

    def task(part: Part, members: Sequence[int]) -> ShardTask:
        return ShardTask(
            chunk=RowChunk.of(listing, [plan.rows[m] for m in members], request.max_pixels),
            digests=tuple(plan.digests[member] for member in members),
            labels=tuple(index_of[plan.labels[member]] for member in members),
            part=part,
            size=plan.image_size,
            graph=plan.graph,
            store=store,
            keys=keys,
        )

    built = workers.map(
        build_shard,
        ((task(part, members), len(members)) for part, members in _cut_shards(plan, listing)),
        total=len(plan.rows),
        what="writing shards",
    )
    return write_envelope(store, _envelope(request, plan, built))


def _cut_shards(plan: Plan, listing: Listing) -> Iterator[tuple[Part, list[int]]]:
    """Yield the shards' parts and rows, as indices into the plan's, sorted by digest."""
    most = min(SHARD_ROWS, max(1, SHARD_BYTES // (3 * plan.image_size**2)))
    for part in PARTS:
        members: list[int] = []
        file_bytes = 0
        for member in (m for m, assigned in enumerate(plan.parts) if assigned is part):
            size_bytes = 0 if part is Part.TRAIN else listing.rows[plan.rows[member]].size_bytes
            full = len(members) == most or file_bytes + size_bytes > SHARD_FILE_BYTES
            if members and full:
                yield part, members
                members, file_bytes = [], 0
            members.append(member)
            file_bytes += size_bytes
        if members:
            yield part, members


def _envelope(request: ImageRequest, plan: Plan, built: Sequence[BuiltShard]) -> ImageEnvelope:
    per_class: dict[str, Counter[Part]] = defaultdict(Counter)
    for label, part in zip(plan.labels, plan.parts, strict=True):
        per_class[label][part] += 1
    mean, std = _normalisation(built, plan.image_size)
    return ImageEnvelope(
        id=plan.id,
        dataset=request.name,
        classes=plan.classes,
        image_size=plan.image_size,
        image_size_reason=plan.image_size_reason,
        counts={part.value: plan.parts.count(part) for part in PARTS},
        counts_per_class={
            label: {part: per_class[label][part] for part in PARTS} for label in plan.classes
        },
        quarantined=plan.quarantined,
        findings=plan.findings,
        thresholds=plan.thresholds,
        shards=tuple(each.shard for each in built),
        versions=plan.versions,
        source=request.location.uri,
        mean=mean,
        std=std,
    )


def _normalisation(
    built: Sequence[BuiltShard], size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel over the training rows.

    The sums are integers, so neither the order of the shards nor their number matters.
    """
    train = [each for each in built if each.shard.part == Part.TRAIN]
    n = sum(each.shard.rows for each in train) * size * size
    mean, std = [], []
    for channel in range(3):
        total = sum(each.sums[channel] for each in train)
        squares = sum(each.square_sums[channel] for each in train)
        mean.append(total / n)
        std.append(math.sqrt(n * squares - total * total) / n or 1.0)
    return tuple(mean), tuple(std)
