"""Weights of the pretrained seed: kept beside the study, and what trainings start from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from automl.domain.specification import LimitsSection
from automl.errors import TrainingError
from automl.morphism.architecture import Architecture
from automl.morphism.moves import Move, inherit
from automl.morphism.pretrained import lite0, normalised_for
from automl.tracks.image.facts import ImageFacts
from automl.tracks.image.pretrained import NOT_INSTALLED, facts_of, is_pretrained, unfit
from automl.tracks.track import Ancestor, StudyFiles
from automl.training.backbone import lite0_state
from automl.training.module import Normalization
from automl.training.problem import InitialWeights
from automl.training.results import weights_from_bytes, weights_to_bytes

log = logging.getLogger(__name__)


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
    reason = unfit(limits, facts)
    state = None if reason else lite0_state()
    if state is None:
        log.info("no pretrained seed: %s", reason or NOT_INSTALLED)
        return None
    data = weights_to_bytes(lite0(facts.image_size, facts.classes).weights(state))
    digest = hashlib.sha256(data).hexdigest()
    files.put(_name(digest), data)  # the same bytes whenever it is written
    return digest


def pretrained_weights(
    files: StudyFiles, trial: Ancestor, normalization: Normalization
) -> InitialWeights | None:
    """Return the weights that a trial without a parent starts from, None for fresh ones.

    Args:
        files: kept with the study.
        trial: the trial.
        normalization: of the images that it will be trained on.
    """
    facts = facts_of(trial)
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


def _name(digest: str) -> str:
    return f"pretrained/{digest}.safetensors"
