"""What a trial evaluates, as a function of the log alone; live workers and `replay` share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.parsing import Purpose, parse_spec
from automl.domain.specification import LimitsSection, SearchSection, Strategy
from automl.domain.study import Run, Study
from automl.domain.trial import Trial
from automl.errors import ConfigError, DamagedDataError
from automl.morphism.costs import DeviceFactors
from automl.morphism.limits import LatencyLimit, Limits, MemoryLimit
from automl.morphism.pretrained import lite0
from automl.morphism.seeds import seed_architectures
from automl.runs.budget import is_hurried
from automl.runs.memory import Facts, memory_limit, training_plan, with_memory
from automl.search.history import HistoryReader, changed_trials
from automl.search.recent import Recent
from automl.search.searcher import Searcher, Suggestion
from automl.search.searchers.bayesian import BayesianOptions, BayesianSearcher
from automl.search.searchers.evolution import RegularizedEvolution
from automl.search.searchers.random import RandomSearcher
from automl.search.searchers.tree_search import Effort
from automl.search.space import SearchSpace
from automl.tracks.cards import installed_cards
from automl.tracks.image.snapshot import ImageEnvelope
from automl.tracks.image.space import Allowance, NetworkMorphismSpace

SPACE_VERSION = 11  # rises whenever the same log and seed would lead to other proposals
PRETRAINED = "pretrained"  # the fact that names the weights of a pretrained seed
EPOCHS = "epochs"  # the fact that says how many a trial gets
_DEVICE_FACTORS = tuple(field.name for field in fields(DeviceFactors))

SpaceOf = Callable[[Run], SearchSpace]
_SearcherKey = tuple[str, frozenset[tuple[str, int | str]]]  # run, facts of its space
_SEARCHERS_KEPT = 4  # a study's workers train on few types of devices


@dataclass(frozen=True, slots=True)
class Proposal:
    """What `trial_proposed` records.

    Attributes:
        candidate: what the trial evaluates.
        based_on: log version whose prefix it was computed from.
        strategy: who proposed it.
        repeats: the trial of another snapshot that it measures again, or None.
    """

    candidate: Candidate
    based_on: int
    strategy: str
    repeats: int | None = None


# A morph takes milliseconds to draw and to describe, so that fewer are looked at. Trainings are
# few: what the seeds come to says enough of where to go on.
_OPTIONS = BayesianOptions(initial=3, effort=Effort(rounds=3, parents=3, children=3, samples=3))

_SEARCHERS: Mapping[Strategy, Callable[[SearchSpace], Searcher]] = {
    Strategy.BAYESIAN: lambda space: BayesianSearcher(space, _OPTIONS),
    Strategy.RANDOM: RandomSearcher,
    Strategy.EVOLUTION: RegularizedEvolution,
}


class Proposer:
    """Makes the proposals of one study, as its log or another telling of it has the study.

    What it keeps from one proposal to the next makes the next one quicker, never different.

    Args:
        space_of: gives the search space of a run.
    """

    def __init__(self, space_of: SpaceOf) -> None:
        self._space_of = space_of
        self._reader = HistoryReader()
        self._sections: dict[str, SearchSection] = {}  # by run
        self._searchers = Recent[_SearcherKey, Searcher](_SEARCHERS_KEPT)
        self._draft: tuple[int, Suggestion] | None = None  # of the number proposed last

    def propose(self, ticket: Study, head: Study, number: int) -> Proposal:
        """Return the proposal for a trial that has no candidate yet.

        It is computed from the log's prefix up to the trial's ticket, so that a lost race changes
        nothing; if its candidate has been taken meanwhile, it is computed anew from the head. Seed
        and strategy are those that the run which opened the trial was opened with.

        Args:
            ticket: the study after the version that opened the trial.
            head: the study after the version before the one that records the proposal.
            number: the trial.

        Raises:
            ConfigError: this version cannot search as the run was told to.
            SearchSpaceExhaustedError: nothing is left to propose.
        """
        if self._draft is None or self._draft[0] != number:  # a lost race changes nothing of it
            self._draft = number, self._derive(ticket, number)
        suggestion, based_on = self._draft[1], ticket.version
        if _is_taken(suggestion.candidate, head.trials[number], ticket, head):
            suggestion, based_on = self._derive(head, number), head.version
        return Proposal(suggestion.candidate, based_on, suggestion.strategy, suggestion.repeats)

    def _derive(self, prefix: Study, number: int) -> Suggestion:
        """Return what to evaluate, computed from a prefix of the log alone."""
        trial = prefix.trials[number]
        run = prefix.run(trial.run)
        assert run is not None
        if run.name not in self._sections:
            self._sections[run.name] = recorded_search(run)
        search = self._sections[run.name]
        searcher = self._searcher(with_memory(run, prefix, trial, search.limits.device_memory))
        history = self._reader.read(prefix, trial.generation, trial.snapshot)
        return searcher.propose(history, np.random.default_rng([search.seed, number]))

    def _searcher(self, run: Run) -> Searcher:
        """Return the searcher of a run; with other bounds of memory it is another one."""
        key = run.name, frozenset(run.space.recorded.items() if run.space else ())
        make = _SEARCHERS[self._sections[run.name].strategy]
        return self._searchers.get(key, lambda: make(self._space_of(run)))


def recorded_search(run: Run) -> SearchSection:
    """Return how the run was told to search.

    Raises:
        ConfigError: this version refuses the specification that the log holds.
    """
    try:
        # an estimator's runs lack test rows, which is of no concern here
        return parse_spec(run.spec, installed_cards(), purpose=Purpose.ESTIMATOR).search
    except ConfigError as error:
        raise ConfigError(
            f"Run {run.name} was opened with a specification that this version refuses.",
            "use the version of the platform that opened the run",
            error.problems,
        ) from error


def space_facts(manifest: ImageEnvelope) -> dict[str, int | str]:
    """Return what every search space depends on besides the specification, for `run_opened`."""
    return {
        "image_size": manifest.image_size,
        "classes": len(manifest.classes),
        "version": SPACE_VERSION,
    }


def search_space(run: Run, facts: Facts | None = None) -> NetworkMorphismSpace:
    """Return the search space of a run.

    Args:
        run: the run, which records its specification and what else the space depends on.
        facts: what `space_facts` say of its snapshot; needed for runs that did not record it.

    Raises:
        ConfigError: no seed is within the limits, or this version refuses the specification.
        DamagedDataError: a fact is missing.
    """
    return space_of_search(recorded_search(run), (run.space.recorded if run.space else facts) or {})


def space_of_search(search: SearchSection, facts: Facts) -> NetworkMorphismSpace:
    """Return the search space of a specification.

    Args:
        search: how to search.
        facts: what `run_opened` records of the space.

    Raises:
        ConfigError: no seed is within the limits.
        DamagedDataError: a fact is missing.
        SearchSpaceExhaustedError: networks as small as the seeds ran out of memory.
    """
    try:
        size, classes = int(facts["image_size"]), int(facts["classes"])
        pretrained = lite0(size, classes).architecture if PRETRAINED in facts else None
        limits = replace(limits_of(search.limits, facts), memory=None)
        seeds = seed_architectures(size, classes) + ([pretrained] if pretrained else [])
        seeds = [seed for seed in seeds if limits.allow(seed)]
        memory = memory_limit(facts, search.limits.device_memory, seeds)
    except KeyError as error:
        raise DamagedDataError(
            f"The log's description of the search space, {dict(facts)}, has no {error}, on which "
            f"a search with limits {search.limits.model_dump(exclude_none=True)} depends.",
            "restore it from a backup of the home; see docs/runbook.md",
        ) from error
    epochs = int(facts[EPOCHS]) if EPOCHS in facts else None
    allowance = Allowance(epochs, is_hurried(search, facts))
    return NetworkMorphismSpace(
        size, classes, replace(limits, memory=memory), pretrained, allowance
    )


def limits_of(limits: LimitsSection, facts: Facts) -> Limits:
    """Return what no architecture may exceed.

    Raises:
        KeyError: a fact that a limit depends on is missing.
    """
    latency = memory = None
    if limits.latency_ms is not None:
        factors = DeviceFactors(**{name: int(facts[name]) for name in _DEVICE_FACTORS})
        latency = LatencyLimit(limits.latency_ms, factors)
    if limits.device_memory is not None:
        memory = MemoryLimit(limits.device_memory, training_plan(facts, None))
    found = Limits(latency=latency, memory=memory)
    return found if limits.parameters is None else replace(found, parameters=limits.parameters)


def _is_taken(candidate: Candidate, trial: Trial, ticket: Study, head: Study) -> bool:
    """Whether a comparable trial got the candidate after the ticket."""
    return any(
        peer.candidate is not None
        and peer.number != trial.number
        and peer.generation == trial.generation
        and peer.snapshot == trial.snapshot
        and peer.candidate.identity == candidate.identity
        for peer in changed_trials(ticket, head)
    )
