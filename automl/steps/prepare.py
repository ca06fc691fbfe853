"""The step `prepare`: the study's sources become its snapshot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from automl.data.snapshot import Snapshot, SnapshotManifest
from automl.errors import DataError
from automl.runs.context import StepContext
from automl.storage.file import FileObjectStore
from automl.storage.objects import ObjectStore
from automl.storage.open import open_store
from automl.tracks.image.prepare import DatasetRequest, local_client, prepare_snapshot

Progress = Callable[[int, int, str], None]


def prepare(context: StepContext, on_progress: Progress) -> SnapshotManifest:
    """Return the manifest of the study's snapshot, building it unless it exists already.

    Raises:
        DataError: the dataset cannot be used; the problems list rows and reasons.
    """
    data = context.spec.data
    source_store, source_key = _locate(data.source)
    images = (None, None) if data.images is None else _locate(data.images)
    request = DatasetRequest(
        name=context.spec.name,
        source=source_store,
        source_key=source_key,
        images=images[0],
        images_prefix=images[1],
        label=data.label,
        image_size=data.image_size,
        split=data.split.value,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        seed=context.spec.search.seed,
        max_bad_fraction=data.max_bad_fraction,
        thresholds=_first_thresholds(context),
    )
    with local_client() as client:
        return prepare_snapshot(request, context.store, client=client, on_progress=on_progress)


def _first_thresholds(context: StepContext) -> dict[str, list[float]] | None:
    """Return the split thresholds that the generation's first snapshot fixed, if there is one."""
    study = context.record.refresh()
    if not study.generation_keys or study.generation_keys[-1] != context.spec.generation_key:
        return None
    generation = len(study.generation_keys) - 1
    first = next(run for run in study.runs if run.generation == generation)
    manifest = Snapshot.open(context.store, context.spec.name, first.snapshot).manifest
    return {label: list(values) for label, values in manifest.thresholds.items()}


def _locate(uri: str) -> tuple[ObjectStore, str]:
    """Return the store that holds `uri` and its key there."""
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return open_store(f"s3://{bucket}"), key
    path = Path(uri).resolve()
    if not path.exists():
        raise DataError(f"{path} does not exist.", "correct data.source or data.images")
    return FileObjectStore(path.parent), path.name
