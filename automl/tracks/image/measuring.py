"""Measurements at the opening of a run: what its search space and its trainings depend on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from automl.data.splits import Part
from automl.domain.specification import LimitsSection, SearchSection
from automl.machine.cores import threads_of_trial
from automl.morphism.architecture import Architecture
from automl.morphism.costs import DeviceFactors
from automl.morphism.pretrained import frozen_nodes, lite0
from automl.morphism.seeds import (
    INPUT_CHANNELS,
    MOST_PROMISING,
    named_seeds,
    seed_architectures,
)
from automl.search.budget import full_seconds, is_short_budget
from automl.tracks.image.facts import ImageFacts
from automl.tracks.image.limits import most_macs
from automl.tracks.image.pretrained_weights import store_pretrained
from automl.tracks.image.snapshot import ImageEnvelope
from automl.tracks.image.spending import FULL_BUDGET, budget_of
from automl.tracks.track import StudyFiles
from automl.training.augmentation import most_reach
from automl.training.device import choose_device
from automl.training.device_factors import calibrate
from automl.training.inference import BATCH_ROWS
from automl.training.lines import line_bytes
from automl.training.precision import Precision, choose_precision, step_seconds
from automl.training.replicas import most_copies

_ENOUGH_EPOCHS = 60  # after so many, small data have taught fresh weights most of what they will
_ENOUGH_PRETRAINED_EPOCHS = 10  # likewise pretrained ones; after them, a new cycle teaches more
_LABEL_BYTES = 8

log = logging.getLogger(__name__)


def measure(images: ImageEnvelope, search: SearchSection, files: StudyFiles) -> ImageFacts:
    """Return what the search space of a new run depends on.

    Limits, precision and times are measured on this machine, so that others propose by the same
    figures. The pretrained seed's weights are stored beside the study.

    Args:
        images: the snapshot's envelope.
        search: how the run searches.
        files: kept with the study.

    Raises:
        DamagedDataError: the installed pretrained weights are not those that were published.
    """
    device = "cpu" if search.resources.gpus == 0 else choose_device()
    precision = _precision(images, device)
    facts = ImageFacts(
        image_size=images.image_size,
        classes=len(images.classes),
        factors=_factors(search.limits, images),
        replicas=most_copies(device, threads_of_trial(search), FULL_BUDGET.batch_size),
        is_bfloat16=precision is Precision.BFLOAT16,
        macs=most_macs(images.image_size),
    )
    facts = with_rows(facts, images)
    facts = replace(facts, pretrained=store_pretrained(files, search.limits, facts))

    def epoch_seconds(architecture: Architecture, frozen: int = 0) -> float:
        threads = threads_of_trial(search)
        step_s = step_seconds(device, architecture, precision, threads, frozen)
        return step_s * max(1, images.counts[Part.TRAIN] // FULL_BUDGET.batch_size)

    return timed(facts, search, images.counts[Part.TRAIN], epoch_seconds)


def timed(
    facts: ImageFacts,
    search: SearchSection,
    rows: int,
    epoch_seconds: Callable[[Architecture, int], float],
) -> ImageFacts:
    """Return the facts with how long trainings take that are neither stopped nor shortened.

    A search with a number of trials gives them all epochs; one with a limit of time gives them a
    time, for as many epochs as a few steps of the most promising seed on this machine tell. A
    short-budget search gives less to the pretrained seed, if that has learnt enough by then.

    Args:
        facts: the others.
        search: how the run searches.
        rows: training rows.
        epoch_seconds: what an epoch of a network takes, so many of whose first nodes are frozen.
    """
    budget, size, classes = budget_of(search, rows), facts.image_size, facts.classes
    if search.max_trials is not None:
        return replace(facts, epochs=budget.epochs)
    epoch_s = epoch_seconds(named_seeds(size, classes)[MOST_PROMISING], 0)
    enough_s = epoch_s * min(budget.epochs, _ENOUGH_EPOCHS)
    full_s = full_seconds(search.time_limit.total_seconds(), search, enough_s)
    assert full_s is not None
    facts = replace(
        facts,
        epochs=min(budget.epochs, max(1, round(full_s / epoch_s))),
        trial_ms=round(1000 * full_s),
    )
    if facts.pretrained is None or not is_short_budget(search, facts.trial_ms):
        return facts
    pretrained = lite0(size, classes).architecture
    enough_s = _ENOUGH_PRETRAINED_EPOCHS * epoch_seconds(pretrained, frozen_nodes(pretrained))
    return replace(facts, pretrained_ms=round(1000 * min(full_s, enough_s)))


def _factors(limits: LimitsSection, images: ImageEnvelope) -> DeviceFactors | None:
    if limits.latency_ms is None:
        return None
    factors = calibrate(images.image_size, len(images.classes))
    log.info("latencies are predicted by %s", factors)
    return factors


def with_rows(facts: ImageFacts, images: ImageEnvelope) -> ImageFacts:
    """Return the facts with what the memory of trainings on a snapshot's rows depends on."""
    train, selection = images.counts[Part.TRAIN], images.counts[Part.SELECTION]
    size, labels = images.image_size, (train + selection) * _LABEL_BYTES
    trained = train * size * line_bytes(size, INPUT_CHANNELS, most_reach(size))
    return replace(
        facts,
        batch_size=min(FULL_BUDGET.batch_size, train),
        evaluation_batch=min(BATCH_ROWS, selection),
        dataset_bytes=trained + selection * size**2 * INPUT_CHANNELS + labels,
    )


def _precision(images: ImageEnvelope, device: str) -> Precision:
    """Return what trainings compute in on this machine, tried on the largest seed."""
    seed = seed_architectures(images.image_size, len(images.classes))[-1]
    return choose_precision(device, seed)
