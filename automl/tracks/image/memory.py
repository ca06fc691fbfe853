"""Memory of image trainings: what they are predicted to take, and what their space allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from automl.data.snapshot import Envelope
from automl.domain.candidate import Candidate
from automl.domain.facts import SpaceFacts
from automl.domain.specification import LimitsSection
from automl.domain.trial import Device
from automl.errors import SearchSpaceExhaustedError
from automl.morphism.architecture import Architecture
from automl.morphism.costs import training_work
from automl.morphism.limits import MemoryLimit
from automl.morphism.memory import RESIDENT_SHARE, Precision, TrainingPlan, memory_need
from automl.morphism.seeds import seed_architectures
from automl.search.memory_model import MemoryBound
from automl.tracks.image.facts import ImageFacts
from automl.tracks.image.snapshot import ImageEnvelope

SMALL_STEP_WORK = 10_000_000_000
"""Multiply-adds of a training step below which trials share a GPU.

An estimate, not a measurement: a step of some fifty layers starts some 300 kernels, which takes the
host about 1.5 ms; a large GPU does this work in that time at a tenth of its peak rate, so that a
smaller step leaves it idle for most of the time.
"""
_RUNTIME_BYTES = 2**30  # of a process: CUDA's context, the libraries' workspace and their caches
_TRAINING_FACTOR = 2  # what is predicted, and at most as much for what lives for a moment only
_NO_LIMITS = LimitsSection()


class ImageMemory:
    """Memory that trainings of networks take."""

    def resident_bytes(self, facts: SpaceFacts, device: Device) -> int | None:
        """Return the bytes of rows that stay on the device during a training.

        Returns:
            None where the run recorded nothing of its trainings, so that nothing bounds them.
        """
        known = ImageFacts.read(facts, _NO_LIMITS)
        return None if known.batch_size is None else _resident_bytes(known, device)

    def refit_bytes(self, candidate: Candidate, facts: SpaceFacts, device: Device) -> int | None:
        """Return what a final fit takes: a training's batches and rows, and no evaluation."""
        known = ImageFacts.read(facts, _NO_LIMITS)
        if known.batch_size is None:
            return None
        plan = replace(training_plan(known, device), evaluation_batch=0)
        return memory_need(Architecture.from_genotype(candidate.genotype), plan).total

    def shared_bytes(
        self, candidates: Sequence[Candidate], facts: SpaceFacts, limit: int, envelope: Envelope
    ) -> int | None:
        """Return what a process takes at most of a GPU that it shares.

        `search.limits.device_memory` is a bound, since nothing larger is proposed. To twice the
        limit, which counts only what waits for the backward pass, come the dataset, which lies on
        the device, and the runtime.

        Returns:
            None for the whole GPU: the trainings are too large to gain by sharing.
        """
        known = ImageFacts.read(facts, _NO_LIMITS)
        if known.batch_size is None or step_work(candidates, known) >= SMALL_STEP_WORK:
            return None
        assert isinstance(envelope, ImageEnvelope)
        image_bytes = envelope.image_size**2 * len(envelope.mean)
        rows = sum(envelope.counts.values())
        return _TRAINING_FACTOR * limit + image_bytes * rows + _RUNTIME_BYTES


def step_work(candidates: Sequence[Candidate], facts: ImageFacts) -> float:
    """Return the predicted work of a training step, in multiply-adds: the mean over many networks.

    They are the seeds and the given ones.

    Args:
        candidates: the newest ones.
        facts: of the run, with the size of its batches.
    """
    assert facts.batch_size is not None
    proposed = [Architecture.from_genotype(candidate.genotype) for candidate in candidates]
    seeds = seed_architectures(facts.image_size, facts.classes)
    return facts.batch_size * fmean(training_work(each) for each in [*seeds, *proposed])


def training_plan(facts: ImageFacts, device: Device | None) -> TrainingPlan:
    """Return what the memory of a run's trainings depends on.

    The rows are on the device, with margins for their shifts, where they leave room for a network;
    else they are streamed.

    Args:
        facts: of the run, with the size of its batches.
        device: where they run; None if that is not known.
    """
    assert facts.batch_size is not None
    return TrainingPlan(
        batch_size=facts.batch_size,
        evaluation_batch=facts.evaluation_batch,
        dataset_bytes=0 if device is None else _resident_bytes(facts, device),
        precision=precision_of(facts),
        replicas=facts.replicas,
    )


def precision_of(facts: ImageFacts | None) -> Precision:
    """Return what trainings compute in, as it was decided when the run was opened."""
    is_half = facts is not None and facts.is_bfloat16
    return Precision.BFLOAT16 if is_half else Precision.FLOAT32


def _resident_bytes(facts: ImageFacts, device: Device) -> int:
    fits = facts.dataset_bytes <= RESIDENT_SHARE * (device.memory_bytes or facts.dataset_bytes)
    return facts.dataset_bytes if fits else 0


def memory_limit(
    facts: ImageFacts,
    bound: MemoryBound | None,
    limit_bytes: int | None,
    seeds: Sequence[Architecture],
) -> MemoryLimit | None:
    """Return the bound of predicted memory, None without any.

    A correction never rules out the seed that needs least: it may be wrong, and a network has to be
    tried. Only a training that ran out of memory rules it out.

    Args:
        facts: of the run.
        bound: what fits on the device by what has been measured.
        limit_bytes: `search.limits.device_memory`.
        seeds: those within all other limits.

    Raises:
        SearchSpaceExhaustedError: networks that need no more than every seed ran out of memory.
    """
    known = bound or MemoryBound()
    if limit_bytes is None and known.most_bytes is None and known.out_of_memory_bytes is None:
        return None
    plan = replace(training_plan(facts, None), dataset_bytes=known.resident_bytes)
    most = [limit for limit in (limit_bytes, known.most_bytes) if limit is not None]
    least = min([memory_need(seed, plan).total for seed in seeds], default=0)
    found = min(most) if most else None
    if found is not None and known.most_bytes is not None:
        found = max(found, least)
    if known.out_of_memory_bytes is not None:
        below = _below(known.out_of_memory_bytes, least)
        found = below if found is None else min(found, below)
    assert found is not None
    return MemoryLimit(found, plan)


def _below(out_of_memory_bytes: int, least: int) -> int:
    """Return what takes less than a training that ran out of memory, if a seed does."""
    if least < out_of_memory_bytes:
        return out_of_memory_bytes - 1
    raise SearchSpaceExhaustedError(
        f"Every network that the search starts from is predicted to take {least:,} bytes or more, "
        "and a training that was predicted to take about as much ran out of memory.",
        "use a device with more memory, fewer search.workers, or a smaller data.image_size",
    )
