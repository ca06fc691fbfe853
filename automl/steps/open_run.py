"""The step `open_run`: what its search space depends on is measured, recorded and checked first."""

from __future__ import annotations

import logging
from dataclasses import asdict

from automl.data.splits import Part
from automl.domain.documents import JsonValue
from automl.domain.specification import LimitsSection
from automl.machine.cores import threads_of_trial
from automl.morphism.architecture import Architecture
from automl.morphism.pretrained import frozen_nodes, lite0
from automl.morphism.seeds import (
    INPUT_CHANNELS,
    MOST_PROMISING,
    named_seeds,
    seed_architectures,
)
from automl.runs.budget import (
    ENOUGH_EPOCHS,
    ENOUGH_PRETRAINED_EPOCHS,
    PRETRAINED_MS,
    TRIAL_MS,
    full_seconds,
    is_hurried,
)
from automl.runs.context import StepContext
from automl.runs.continuation import check_continuation
from automl.runs.memory import BFLOAT16, SHARDS, Facts
from automl.runs.opening import open_run
from automl.runs.proposals import EPOCHS, space_facts, space_of_search
from automl.steps.call import StepCall
from automl.tracks.image.pretrained import pretrained_facts
from automl.tracks.image.snapshot import ImageEnvelope, ImageSnapshot
from automl.tracks.image.trainer import RUNG, rung_of
from automl.tracks.track import track_of
from automl.training.augmentation import most_reach
from automl.training.device import choose_device
from automl.training.device_factors import calibrate
from automl.training.inference import BATCH_ROWS
from automl.training.lines import line_bytes
from automl.training.precision import Precision, choose_precision, step_seconds
from automl.training.shards import most_copies

_LABEL_BYTES = 8

log = logging.getLogger(__name__)


def open_search(context: StepContext, snapshot: str) -> list[int]:
    """Open the run for a search on a snapshot and return the indices of its workers.

    A second call for the same run measures nothing: what the first one recorded counts.

    Args:
        context: the step's context; the caller holds the run's lease.
        snapshot: id of the prepared dataset.

    Raises:
        ConfigError: no network is within the limits, or the version that is to be continued does
            not fit; nothing is written then.
        DamagedDataError: the installed pretrained weights are not those that were published.
        SearchError: the run has been closed without success.
    """
    facts = None
    manifest = ImageSnapshot.open(context.store, context.spec.name, snapshot).envelope
    if context.record.refresh().run(context.run) is None:
        device = "cpu" if context.spec.search.resources.gpus == 0 else choose_device()
        precision = _precision(manifest, device)
        known: Facts = {
            **space_facts(manifest),
            **_limit_facts(context.spec.search.limits, manifest),
            **memory_facts(manifest),
            SHARDS: most_copies(device, threads_of_trial(context.spec.search), RUNG.batch_size),
            BFLOAT16: int(precision is Precision.BFLOAT16),
        }
        seed = pretrained_facts(context, known)
        times = training_facts(context, manifest, device, precision, is_pretrained=bool(seed))
        facts = {**known, **seed, **times}
        space = space_of_search(context.spec.search, facts)
        dataset = track_of(context.spec.task).open(context.store, context.spec.name, snapshot)
        check_continuation(context, dataset, space)
    return open_run(context, snapshot, facts)


def training_facts(
    context: StepContext,
    manifest: ImageEnvelope,
    device: str,
    precision: Precision,
    *,
    is_pretrained: bool,
) -> dict[str, int]:
    """Return how long trainings take that are neither stopped nor shortened.

    A search with a number of trials gives them all epochs; one with a limit of time gives them a
    time, for as many epochs as a few steps of the most promising seed on this machine tell. A
    hurried one gives less to the pretrained seed, if that has learnt enough by then.

    Args:
        context: the step's context.
        manifest: the snapshot's.
        device: "cpu" or "cuda".
        precision: what trainings compute in.
        is_pretrained: whether there is a pretrained seed.
    """
    search, rows = context.spec.search, manifest.counts[Part.TRAIN]
    size, classes = manifest.image_size, len(manifest.classes)
    rung = rung_of(search, rows)
    if search.max_trials is not None:
        return {EPOCHS: rung.epochs}

    def epoch_seconds(architecture: Architecture, frozen: int = 0) -> float:
        threads = threads_of_trial(search)
        step_s = step_seconds(device, architecture, precision, threads, frozen)
        return step_s * max(1, rows // rung.batch_size)

    epoch_s = epoch_seconds(named_seeds(size, classes)[MOST_PROMISING])
    enough_s = epoch_s * min(rung.epochs, ENOUGH_EPOCHS)
    full_s = full_seconds(search.time_limit.total_seconds(), search, enough_s)
    assert full_s is not None
    facts = {
        EPOCHS: min(rung.epochs, max(1, round(full_s / epoch_s))),
        TRIAL_MS: round(1000 * full_s),
    }
    if is_pretrained and is_hurried(search, facts):
        pretrained = lite0(size, classes).architecture
        epoch_s = epoch_seconds(pretrained, frozen_nodes(pretrained))
        enough_s = ENOUGH_PRETRAINED_EPOCHS * epoch_s
        facts[PRETRAINED_MS] = round(1000 * min(full_s, enough_s))
    return facts


def _limit_facts(limits: LimitsSection, manifest: ImageEnvelope) -> dict[str, int]:
    """Return what the limits depend on, so that other machines propose by the same figures."""
    facts: dict[str, int] = {}
    if limits.latency_ms is not None:
        factors = asdict(calibrate(manifest.image_size, len(manifest.classes)))
        log.info("latencies are predicted by %s", factors)
        facts |= factors
    return facts


def memory_facts(manifest: ImageEnvelope) -> dict[str, int]:
    """Return what the memory of trainings on the snapshot depends on."""
    train, selection = manifest.counts[Part.TRAIN], manifest.counts[Part.SELECTION]
    size, labels = manifest.image_size, (train + selection) * _LABEL_BYTES
    trained = train * size * line_bytes(size, INPUT_CHANNELS, most_reach(size))
    return {
        "batch_size": min(RUNG.batch_size, train),
        "evaluation_batch": min(BATCH_ROWS, selection),
        "dataset_bytes": trained + selection * size**2 * INPUT_CHANNELS + labels,
    }


def _precision(manifest: ImageEnvelope, device: str) -> Precision:
    """Return what trainings compute in on this machine, tried on the largest seed."""
    seed = seed_architectures(manifest.image_size, len(manifest.classes))[-1]
    return choose_precision(device, seed)


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the indices of the run's workers."""
    assert call.snapshot is not None
    return open_search(context, call.snapshot)
