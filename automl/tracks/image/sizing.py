"""Image size `auto`: the largest that time, memory and limits of a study have room for.

The choice follows from the rows and the specification alone. The machine that prepares may not be
one that trains, so nothing is measured: speeds are stated below, and the same study, data and
resources give the same size everywhere.

Up to `BASE_SIZE` pixels the images' own size decides: the networks that a search starts from take
as long at 32 as at 64 px, since their stems halve large images and enlarge small ones. Above it
each size of `LARGE_SIZES` has to pass every bound of `_objection`. Trainings at a lower resolution
average the snapshot's images, so that a large size leaves the search both.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from automl.domain.byte_size import format_byte_size
from automl.domain.duration import format_duration
from automl.domain.specification import SearchSection
from automl.morphism.architecture import Architecture
from automl.morphism.costs import DeviceFactors, training_work
from automl.morphism.pretrained import LITE0_NAME, lite0
from automl.morphism.seeds import INPUT_CHANNELS, named_seeds
from automl.search.budget import full_seconds
from automl.tracks.image.facts import ImageFacts
from automl.tracks.image.full_training import FULL_EPOCHS, STEP_ROWS
from automl.tracks.image.limits import limits_of, most_macs

SIZE_STEP = 8
BASE_SIZE = 64
LARGE_SIZES = (96, 128, 192, 224)
"""Sizes above `BASE_SIZE`, in pixels. The wide seed's stem leaves 24 to 32 pixels of each; of 80
and of 160 it would leave 20, fewer than of the next smaller size."""

LEAST_EPOCHS = 5
"""Epochs of the pretrained seed below which a size costs more than it gains.

With some five of them 128 px were worth 1.2 and 1.6 points more than 64 px (docs/benchmarks.md, The
size of images). Fresh weights need `FULL_EPOCHS`, and every trial that is counted gets them.
"""
CORE_WORK_PER_S = 60_000_000_000
"""Multiply-adds of training (`training_work`) that a CPU thread does in a second.

EfficientNet-Lite0 at 64 px makes 190 to 280 images a second (docs/benchmarks.md): 57 to 84 billion.
"""
THREAD_SHARE = 0.5  # of a further thread: two are 1.48 to 1.65 times as fast as one (there, too)
GPU_WORK_PER_S = 1_500_000_000_000
"""Likewise of a GPU: 25 threads, or 410 images of 224 px a second. An estimate of a small one."""

MOST_ROW_BYTES = 16 * 2**30
"""Bytes of all rows' tensors. Every training keeps most of them in memory or in a file, and
docs/deploy.md gives it 8 GB of memory on a GPU: what is more comes from the page cache or a disk.
"""
USUAL_CORE = DeviceFactors(ps_per_flop=20, ps_per_byte=250, ns_per_layer=10_000)
"""Speed at predicting, by which `limits.latency_ms` is judged: round figures of what `calibrate`
finds on a server's core at 64 to 224 px. The run is held to what it measures itself."""


@dataclass(frozen=True, slots=True)
class FoundRows:
    """Rows of a source, as far as they decide about the size of its images.

    Attributes:
        longer_sides: of the images that were looked at, in pixels; one or more.
        images: all of them, those of an own test set included.
        training: how many of them trials learn from.
        classes: number of labels.
    """

    longer_sides: Sequence[int]
    images: int
    training: int
    classes: int


def choose_image_size(rows: FoundRows, search: SearchSection) -> tuple[int, str]:
    """Return the side of a snapshot's images in pixels, and what decided about it.

    It never enlarges the typical image: the median of the longer sides, rounded to a multiple of
    `SIZE_STEP`, is the most. More time or workers never make it smaller, more rows never larger.

    Args:
        rows: the images.
        search: what the study gives to trainings; `SIZE_KEYS` of it count.
    """
    median = statistics.median(rows.longer_sides)
    typical = max(SIZE_STEP, math.floor(median / SIZE_STEP + 0.5) * SIZE_STEP)
    told = f"auto: the median of {_looked_at(rows)} is {median:g} pixels, "
    if typical <= BASE_SIZE:
        return typical, told + f"rounded to a multiple of {SIZE_STEP}"
    reference = _reference(rows.classes, search)
    why = _why_no_larger(typical)
    for size in reversed(LARGE_SIZES):
        if size > typical:
            continue
        objection = _objection(size, reference, rows, search)
        if not objection:
            return size, told + why
        why = f"and at {size} px {objection}"
    return BASE_SIZE, told + why


def _looked_at(rows: FoundRows) -> str:
    looked_at = len(rows.longer_sides)
    if looked_at == rows.images:
        return "the images' longer sides"
    return f"the longer sides of {looked_at:,} of the {rows.images:,} images"


def _why_no_larger(typical: int) -> str:
    """Return what keeps the size from being larger where no bound of the study does."""
    larger = [size for size in LARGE_SIZES if size > typical]
    if larger:
        return f"and the next size, {larger[0]} px, would enlarge it"
    return f"and auto goes up to {LARGE_SIZES[-1]}"


def _networks(size: int, classes: int) -> Mapping[str, Architecture]:
    """Return what a search may start from, by name.

    EfficientNet-Lite0 is among them, whether its weights are installed here or not.
    """
    return {LITE0_NAME: lite0(size, classes).architecture, **named_seeds(size, classes)}


def _reference(classes: int, search: SearchSection) -> str:
    """Return the name of the network that has to be trained at a size: the costliest one.

    One that the limits rule out at `BASE_SIZE` already says nothing of larger sizes.
    """
    networks = _networks(BASE_SIZE, classes)
    costliest = sorted(networks, key=lambda name: training_work(networks[name]), reverse=True)
    allowed = [name for name in costliest if not _exceeded(networks[name], search)]
    return [*allowed, costliest[-1]][0]


def _objection(size: int, reference: str, rows: FoundRows, search: SearchSection) -> str:
    """Return why the study has no room for a size; "" if it has."""
    if rows.images * size**2 * INPUT_CHANNELS > MOST_ROW_BYTES:
        return f"the {rows.images:,} images would take more than {format_byte_size(MOST_ROW_BYTES)}"
    network = _networks(size, rows.classes)[reference]
    exceeded = _exceeded(network, search)
    if exceeded:
        return f"{_named(reference)} would be beyond search.limits.{exceeded}"
    work = rows.training * training_work(network)
    is_short = search.max_trials is None and reference == LITE0_NAME
    epochs = LEAST_EPOCHS if is_short else FULL_EPOCHS
    if _training_seconds(search) * _work_per_s(search) >= epochs * work:
        return ""
    return (
        f"a search of {_described(search)} would train {_named(reference)} for fewer than "
        f"{epochs} epochs of {rows.training:,} rows"
    )


def _exceeded(network: Architecture, search: SearchSection) -> str:
    """Return the first limit that a network is beyond; "" if there is none.

    Training takes more memory than evaluation does, and float32 more than bfloat16.
    """
    facts = ImageFacts(
        network.input_size,
        classes=2,
        batch_size=STEP_ROWS,
        macs=most_macs(network.input_size),
        factors=USUAL_CORE,
    )
    bounds = limits_of(search.limits, facts).bounded(network)
    return next((bound.name for bound in bounds if bound.value > bound.most), "")


def _training_seconds(search: SearchSection) -> float:
    """Return the most that a training may take: of a search by time what one of few trials gets."""
    limit_s = search.time_limit.total_seconds()
    if search.max_trials is not None:
        return limit_s * min(1.0, search.workers / search.max_trials)
    seconds = full_seconds(limit_s, search, math.inf)
    assert seconds is not None
    return seconds


def _work_per_s(search: SearchSection) -> float:
    """Return the stated speed of a trial. Without `cpus` a thread counts: the cores are unknown."""
    if search.resources.gpus:
        return GPU_WORK_PER_S
    return CORE_WORK_PER_S * (1 + THREAD_SHARE * ((search.resources.cpus or 1) - 1))


def _described(search: SearchSection) -> str:
    trials = "" if search.max_trials is None else f"{_counted(search.max_trials, 'trial')} in "
    threads = _counted(search.resources.cpus or 1, "CPU thread")
    device = "a GPU" if search.resources.gpus else threads
    workers = _counted(search.workers, "worker")
    each = "" if search.workers == 1 else " each"
    return f"{trials}{format_duration(search.time_limit)} by {workers} on {device}{each}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _named(reference: str) -> str:
    return reference if reference == LITE0_NAME else f"the seed {reference!r}"
