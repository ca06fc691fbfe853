"""The search space of a run of images, within the limits of its specification."""

from __future__ import annotations

from dataclasses import replace

from automl.domain.facts import SpaceFacts
from automl.domain.specification import LimitsSection, SearchSection
from automl.morphism.limits import LatencyLimit, Limits, MemoryLimit
from automl.morphism.pretrained import lite0
from automl.morphism.seeds import seed_architectures
from automl.search.budget import is_short_budget
from automl.search.memory_model import MemoryBound
from automl.tracks.image.facts import ImageFacts
from automl.tracks.image.memory import memory_limit, training_plan
from automl.tracks.image.space import Allowance, NetworkMorphismSpace

_USUAL_SIZE = 128  # pixels up to which the usual limit of multiply-adds holds


def morphism_space(
    search: SearchSection, facts: SpaceFacts, memory: MemoryBound | None
) -> NetworkMorphismSpace:
    """Return the search space of a run; see `Track.space`."""
    known = ImageFacts.read(facts, search.limits)
    size, classes = known.image_size, known.classes
    pretrained = None if known.pretrained is None else lite0(size, classes).architecture
    limits = replace(limits_of(search.limits, known), memory=None)
    seeds = seed_architectures(size, classes) + ([pretrained] if pretrained else [])
    able = [seed for seed in seeds if limits.allow(seed)]
    bound = memory_limit(known, memory, search.limits.device_memory, able)
    allowance = Allowance(known.epochs, is_short_budget(search, known.trial_ms))
    return NetworkMorphismSpace(size, classes, replace(limits, memory=bound), pretrained, allowance)


def most_macs(image_size: int) -> int | None:
    """Return the most multiply-adds of a network for one image; None for the usual limit.

    That is twice what EfficientNet-Lite0 takes at `_USUAL_SIZE`. The limit of larger images grows
    with their pixels, as what that network takes does: else it would be ruled out from 192 px on.

    Args:
        image_size: height and width in pixels.
    """
    if image_size <= _USUAL_SIZE:
        return None
    return Limits().macs * image_size**2 // _USUAL_SIZE**2


def limits_of(limits: LimitsSection, facts: ImageFacts) -> Limits:
    """Return what no architecture may exceed; of memory what the specification says of it."""
    latency = memory = None
    if limits.latency_ms is not None:
        assert facts.factors is not None
        latency = LatencyLimit(limits.latency_ms, facts.factors)
    if limits.device_memory is not None:
        memory = MemoryLimit(limits.device_memory, training_plan(facts, None))
    found = Limits(latency=latency, memory=memory)
    if facts.macs is not None:
        found = replace(found, macs=facts.macs)
    return found if limits.parameters is None else replace(found, parameters=limits.parameters)
