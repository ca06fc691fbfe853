"""Building snapshots from sources of images, with Dask."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from PIL import features

from automl.data.dask import Runner
from automl.data.files import SnapshotStore
from automl.data.ledger import Ledger
from automl.data.prepared import find_prepared, find_snapshot, note_prepared, remove_damaged
from automl.data.profile import Distribution, Profile
from automl.data.snapshot import write_envelope
from automl.data.splits import PARTS, Part
from automl.domain.layout import SnapshotKeys
from automl.tracks.image.held_out import check_times
from automl.tracks.image.index import locate
from automl.tracks.image.listings import list_sources
from automl.tracks.image.look_alikes import near_duplicates
from automl.tracks.image.plan import Plan, fingerprint, make_plan
from automl.tracks.image.reading import Reading
from automl.tracks.image.recipe import Recipe
from automl.tracks.image.request import ImageRequest
from automl.tracks.image.sizes import image_size
from automl.tracks.image.snapshot import ImageEnvelope
from automl.tracks.image.statistics import STATISTICS


def prepare_images(request: ImageRequest, store: SnapshotStore, workers: Runner) -> ImageEnvelope:
    """Return the envelope of the source's snapshot, `reused` if it existed already.

    Raises:
        DataError: the dataset cannot be used, or too many rows cannot; the problems say which.
    """
    if request.doubted is not None:
        remove_damaged(store, request.name, request.doubted, ImageEnvelope)
    request, listing = list_sources(request)
    check_times(request, listing)
    versions = _versions()
    name = fingerprint(request, listing, versions)
    known = find_prepared(store, request.name, name, ImageEnvelope)
    if known is not None:
        return known
    recipe = Recipe.of(request, image_size(request, listing), versions)
    reading = Reading(request.name, listing, recipe, store, workers)
    with reading.nothing_left_of_refused_data():
        envelope = _snapshot(request, reading)
    size = envelope.image_size if request.image_size == "auto" else None
    next_one = replace(request, thresholds=envelope.thresholds, fixed_size=size)
    for asked in (request, next_one):  # as the generation's next run will ask
        note_prepared(store, envelope, fingerprint(asked, listing, versions))
    return envelope


def _versions() -> dict[str, str]:
    return {
        "onnxruntime": version("onnxruntime"),
        "pillow": version("pillow"),
        "jpeg": f"{features.version('jpg')} turbo {features.version('libjpeg_turbo')}",
        "webp": str(features.version("webp")),
    }


def _snapshot(request: ImageRequest, reading: Reading) -> ImageEnvelope:
    """Return the envelope of the snapshot, which is stored afterwards."""
    store, recipe = reading.store, reading.recipe
    ledger, inspected = reading.inspect()
    find_near = partial(near_duplicates, store, ledger)
    plan = make_plan(request, reading.listing, inspected, recipe, find_near)
    found = find_snapshot(store, request.name, plan.id, ImageEnvelope)
    if found is not None:
        return found
    keys = SnapshotKeys(request.name, plan.id)
    store.put(keys.preprocess, recipe.graph)
    located = locate(reading.listing, plan, ledger, reading.keep_files(plan, ledger))
    envelope = _envelope(request, len(reading.listing), plan, ledger)
    return write_envelope(store, envelope.model_copy(update=located.stored(store, keys)))


def _envelope(request: ImageRequest, listed: int, plan: Plan, ledger: Ledger) -> ImageEnvelope:
    """Return the envelope of a snapshot from so many listed rows, but for where its rows are."""
    counts = np.zeros((len(plan.labels.names), len(PARTS)), np.int64)
    np.add.at(counts, (plan.labels.codes, plan.parts), 1)
    per_part, per_class = counts.sum(axis=0).tolist(), counts.tolist()
    is_train = plan.parts == PARTS.index(Part.TRAIN)
    mean, std = _normalisation(ledger, plan.contents[is_train], plan.recipe.size)
    return ImageEnvelope(
        id=plan.id,
        dataset=request.name,
        classes=plan.labels.names,
        image_size=plan.recipe.size,
        image_size_reason=plan.recipe.size_reason,
        resize=request.resize,
        counts=dict(zip(PARTS, per_part, strict=True)),
        counts_per_class={
            label: dict(zip(PARTS, row, strict=True))
            for label, row in zip(plan.labels.names, per_class, strict=True)
        },
        quarantined=plan.quarantined,
        excluded=plan.excluded,
        findings=plan.findings,
        thresholds=plan.thresholds,
        versions=dict(plan.recipe.versions),
        source=request.location.uri,
        test_source=None if request.test_location is None else request.test_location.uri,
        profile=_profile(listed, plan, ledger),
        mean=mean,
        std=std,
    )


def _profile(listed: int, plan: Plan, ledger: Ledger) -> Profile:
    """Return what the snapshot is compared with others by."""
    columns = ledger.fact("statistics")[plan.contents].T
    statistics = {
        name: Distribution.of(column, bins)
        for (name, bins), column in zip(STATISTICS.items(), columns, strict=True)
    }
    is_known = (plan.digests[1:] == plan.digests[:-1]).all(axis=1)  # they are sorted
    return Profile(
        rows_listed=listed,
        rows=len(plan.rows),
        rows_per_label=dict(zip(plan.labels.names, plan.labels.counts.tolist(), strict=True)),
        excluded=len(plan.excluded),
        duplicates=int(is_known.sum()),
        statistics=statistics,
    )


def _normalisation(
    ledger: Ledger, contents: NDArray[np.int64], size: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel over the training rows.

    The sums are integers, so that the order of the rows does not matter.
    """
    n = len(contents) * size * size
    totals = ledger.fact("sums")[contents].sum(axis=0).tolist()
    squares = ledger.fact("squares")[contents].sum(axis=0).tolist()
    mean = tuple(total / n for total in totals)
    std = tuple(
        math.sqrt(n * square - total * total) / n or 1.0
        for total, square in zip(totals, squares, strict=True)
    )
    return mean, std
