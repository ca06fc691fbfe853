"""From a source to a snapshot, with Dask."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from PIL import features

from automl.data.files import OnProgress, SnapshotStore
from automl.data.snapshot import (
    Shard,
    SnapshotManifest,
    count_rows,
    read_manifest,
)
from automl.data.splits import PARTS, Part
from automl.domain.layout import DatasetKeys
from automl.errors import (
    DamagedDataError,
    NotFoundError,
    PreconditionFailedError,
    StorageError,
)
from automl.tracks.image.passes import (
    BuiltShard,
    Inspected,
    RowChunk,
    ShardTask,
    Workers,
    build_shard,
    inspect_rows,
)
from automl.tracks.image.plan import Plan, fingerprint, make_plan
from automl.tracks.image.request import DatasetRequest
from automl.tracks.image.sources import Listing, list_source

if TYPE_CHECKING:
    import distributed

__all__ = ["DatasetRequest", "SnapshotManifest", "local_client", "prepare_snapshot"]

CHUNK_ROWS = 256
SHARD_ROWS = 2048
SHARD_FILE_BYTES = 128 * 2**20  # of the encoded files that validation and test shards keep
log = logging.getLogger(__name__)


@contextmanager
def local_client() -> Iterator[distributed.Client]:
    """Yield a client of the cluster at DASK_SCHEDULER_ADDRESS, or else of threads in this process.

    Raises:
        StorageError: no scheduler answers at the address.
    """
    import distributed

    logging.getLogger("distributed").setLevel(logging.WARNING)  # its import sets INFO
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if address:
        try:
            client: distributed.Client = distributed.Client(address, set_as_default=False)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"DASK_SCHEDULER_ADDRESS is {address}, where no scheduler answers: {error}.",
                "start it, or unset the variable",
            ) from error
        with client:
            yield client
        return
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=os.cpu_count() or 1,
            processes=False,
            dashboard_address="127.0.0.1:0",  # a free port: even without pages one is listened on
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def prepare_snapshot(
    request: DatasetRequest,
    store: SnapshotStore,
    *,
    client: distributed.Client,
    on_progress: OnProgress,
) -> SnapshotManifest:
    """Return the manifest of the source's snapshot, `reused` if it existed already.

    Raises:
        DataError: the dataset cannot be used, or too many rows cannot; the problems say which.
    """
    workers = Workers(client, on_progress)
    listing = list_source(request.location)
    versions = _versions()
    known = _find_prepared(
        request, store, fingerprint(request, listing, versions, request.thresholds)
    )
    if known is not None:
        return known
    plan = make_plan(request, listing, _inspect(listing, workers), versions)
    try:
        manifest = read_manifest(store, request.name, plan.id)
        manifest = manifest.model_copy(update={"reused": True})
    except NotFoundError:
        manifest = _build(request, store, listing, plan, workers)
    for fixed in (request.thresholds, manifest.thresholds):
        name = fingerprint(request, listing, versions, fixed)
        content = json.dumps({"schema": 1, "snapshot": manifest.id}) + "\n"
        store.put(DatasetKeys(request.name).source(name), content.encode())
    return manifest


def _find_prepared(
    request: DatasetRequest, store: SnapshotStore, name: str
) -> SnapshotManifest | None:
    key = DatasetKeys(request.name).source(name)
    try:
        content = store.get(key).data
    except NotFoundError:
        return None
    try:
        snapshot_id = json.loads(content)["snapshot"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedDataError(f"{key} names no snapshot.", "delete it") from error
    try:
        manifest = read_manifest(store, request.name, snapshot_id)
    except NotFoundError:
        return None  # deleted by retention; it is built again
    return manifest.model_copy(update={"reused": True})


def _versions() -> dict[str, str]:
    return {
        "onnxruntime": version("onnxruntime"),
        "pillow": version("pillow"),
        "jpeg": f"{features.version('jpg')} turbo {features.version('libjpeg_turbo')}",
        "webp": str(features.version("webp")),
    }


def _inspect(listing: Listing, workers: Workers) -> list[Inspected]:
    total = len(listing.rows)
    chunks = (range(start, min(start + CHUNK_ROWS, total)) for start in range(0, total, CHUNK_ROWS))
    results = workers.map(
        inspect_rows,
        ((RowChunk.of(listing, chunk), len(chunk)) for chunk in chunks),
        total=total,
        what="reading rows",
    )
    return [seen for result in results for seen in result]


def _build(
    request: DatasetRequest,
    store: SnapshotStore,
    listing: Listing,
    plan: Plan,
    workers: Workers,
) -> SnapshotManifest:
    keys = DatasetKeys(request.name).snapshot(plan.id)
    index_of = {label: index for index, label in enumerate(plan.classes)}
    store.put(keys.preprocess, plan.graph)

    def task(part: Part, members: Sequence[int]) -> ShardTask:
        return ShardTask(
            chunk=RowChunk.of(listing, [plan.rows[member] for member in members]),
            digests=tuple(plan.digests[member] for member in members),
            labels=tuple(index_of[plan.labels[member]] for member in members),
            part=part,
            graph=plan.graph,
            store=store,
            keys=keys,
        )

    shards = workers.map(
        build_shard,
        ((task(part, members), len(members)) for part, members in _cut_shards(plan, listing)),
        total=len(plan.rows),
        what="writing shards",
    )
    manifest = _manifest(request, plan, shards)
    try:
        store.put_if_absent(keys.manifest, manifest.to_bytes())
    except PreconditionFailedError:
        log.info("snapshot %s was finished by another process", plan.id)
        return read_manifest(store, request.name, plan.id).model_copy(update={"reused": True})
    log.info("snapshot %s of %s has %d rows", plan.id, request.name, len(plan.rows))
    return manifest


def _cut_shards(plan: Plan, listing: Listing) -> Iterator[tuple[Part, list[int]]]:
    """Yield the shards' parts and rows, as indices into the plan's, sorted by digest."""
    for part in PARTS:
        members: list[int] = []
        file_bytes = 0
        for member in (m for m, assigned in enumerate(plan.parts) if assigned is part):
            size_bytes = 0 if part is Part.TRAIN else listing.rows[plan.rows[member]].size_bytes
            full = len(members) == SHARD_ROWS or file_bytes + size_bytes > SHARD_FILE_BYTES
            if members and full:
                yield part, members
                members, file_bytes = [], 0
            members.append(member)
            file_bytes += size_bytes
        if members:
            yield part, members


def _manifest(
    request: DatasetRequest, plan: Plan, shards: Sequence[BuiltShard]
) -> SnapshotManifest:
    per_class: dict[str, Counter[Part]] = defaultdict(Counter)
    for label, part in zip(plan.labels, plan.parts, strict=True):
        per_class[label][part] += 1
    mean, std = _normalisation(shards, plan.image_size)
    return SnapshotManifest(
        id=plan.id,
        dataset=request.name,
        classes=plan.classes,
        image_size=plan.image_size,
        image_size_reason=plan.image_size_reason,
        counts=count_rows(plan.parts),
        counts_per_class={
            label: {part: per_class[label][part] for part in PARTS} for label in plan.classes
        },
        quarantined=plan.quarantined,
        thresholds=plan.thresholds,
        shards=tuple(
            Shard(
                key=shard.key,
                part=shard.part,
                rows=shard.rows,
                sha256=shard.sha256,
                size_bytes=shard.size_bytes,
            )
            for shard in shards
        ),
        versions=plan.versions,
        source=request.location.uri,
        mean=mean,
        std=std,
    )


def _normalisation(
    shards: Sequence[BuiltShard], size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel over the training rows.

    The sums are integers, so neither the order of the shards nor their number matters.
    """
    train = [shard for shard in shards if shard.part is Part.TRAIN]
    n = sum(shard.rows for shard in train) * size * size
    mean, std = [], []
    for channel in range(3):
        total = sum(shard.sums[channel] for shard in train)
        squares = sum(shard.square_sums[channel] for shard in train)
        mean.append(total / n)
        std.append(math.sqrt(n * squares - total * total) / n or 1.0)
    return tuple(mean), tuple(std)
