"""What a trial evaluates, as a function of the log alone; live workers and `replay` share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from automl.data.snapshot import SnapshotManifest
from automl.domain.candidate import Candidate
from automl.domain.parsing import Purpose, parse_spec
from automl.domain.specification import SearchSection, Strategy
from automl.domain.study import Run, Study
from automl.domain.trial import Trial
from automl.errors import ConfigError, DamagedDataError
from automl.search.network_morphism import NetworkMorphismSpace
from automl.search.random import RandomSearcher
from automl.search.space import SearchSpace


@dataclass(frozen=True, slots=True)
class Proposal:
    """What `trial_proposed` records.

    Attributes:
        candidate: what the trial evaluates.
        based_on: log version whose prefix it was computed from.
        strategy: who proposed it.
    """

    candidate: Candidate
    based_on: int
    strategy: str


def derive(prefix: Study, number: int, run: Run, space: SearchSpace) -> Candidate:
    """Return the candidate of a trial, computed from a prefix of the log.

    Args:
        prefix: the study after some version that includes the trial's ticket.
        number: the trial.
        run: the run that opened it, which says how to search.
        space: the search space of that run.

    Raises:
        ConfigError: this version cannot search as the run was told to.
        SearchSpaceExhaustedError: nothing is left to propose.
    """
    search = recorded_search(run)
    rng = np.random.default_rng([search.seed, number])
    peers = _peers(prefix, prefix.trials[number])
    return _searcher(search.strategy, space).propose(peers, rng)


def propose(
    ticket: Study, head: Study, number: int, space: SearchSpace, draft: Candidate | None = None
) -> Proposal:
    """Return the proposal for a trial that has no candidate yet.

    It is computed from the log's prefix up to the trial's ticket, so that a lost race changes
    nothing; if its candidate has been taken meanwhile, it is computed anew from the head. Seed and
    strategy are those that the run which opened the trial was opened with.

    Args:
        ticket: the study after the version that opened the trial.
        head: the study after the version before the one that records the proposal.
        number: the trial.
        space: the search space of the trial's run.
        draft: what `derive` returns for the ticket, if it is known.

    Raises:
        ConfigError: this version cannot search as the run was told to.
        SearchSpaceExhaustedError: nothing is left to propose.
    """
    trial = head.trials[number]
    run = head.run(trial.run)
    assert run is not None
    candidate = derive(ticket, number, run, space) if draft is None else draft
    based_on = ticket.version
    taken = {peer.candidate.identity for peer in _peers(head, trial) if peer.candidate is not None}
    if candidate.identity in taken:
        candidate, based_on = derive(head, number, run, space), head.version
    return Proposal(candidate, based_on, recorded_search(run).strategy.value)


def recorded_search(run: Run) -> SearchSection:
    """Return how the run was told to search.

    Raises:
        ConfigError: this version refuses the specification that the log holds.
    """
    try:
        # an estimator's runs lack test rows, which is of no concern here
        return parse_spec(run.spec, purpose=Purpose.ESTIMATOR).search
    except ConfigError as error:
        raise ConfigError(
            f"Run {run.name} was opened with a specification that this version refuses.",
            "use the version of the platform that opened the run",
            error.problems,
        ) from error


def space_facts(manifest: SnapshotManifest) -> dict[str, int]:
    """Return what the search space depends on besides the specification, for `run_opened`."""
    return {"image_size": manifest.image_size, "classes": len(manifest.classes)}


def search_space(facts: Mapping[str, int]) -> NetworkMorphismSpace:
    """Return the search space that `space_facts` describe.

    Raises:
        DamagedDataError: a fact is missing.
    """
    try:
        return NetworkMorphismSpace(facts["image_size"], facts["classes"])
    except KeyError as error:
        raise DamagedDataError(
            f"The log's description of the search space, {dict(facts)}, has no {error}.",
            "restore it from a backup of the home; see docs/runbook.md",
        ) from error


def _searcher(strategy: Strategy, space: SearchSpace) -> RandomSearcher:
    if strategy is not Strategy.RANDOM:
        raise ConfigError(
            f"This version has no searcher for strategy {strategy.value!r}.", "use random"
        )
    return RandomSearcher(space)


def _peers(study: Study, trial: Trial) -> list[Trial]:
    """Return the trials that the proposal may look at: those that compare with it."""
    return [
        peer
        for peer in study.trials
        if peer.number != trial.number
        and peer.generation == trial.generation
        and peer.snapshot == trial.snapshot
    ]
