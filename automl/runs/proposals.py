"""Proposals, as functions of the log alone; live workers and `replay` share them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.facts import SpaceFacts
from automl.domain.parsing import Purpose, parse_spec
from automl.domain.specification import SearchSection, Strategy, StudySpec
from automl.domain.study import Run, Study
from automl.domain.trial import Trial
from automl.errors import ConfigError
from automl.runs.memory import candidate_bound
from automl.search.history import HistoryReader, changed_trials
from automl.search.memory_model import MemoryBound
from automl.search.recent import Recent
from automl.search.searcher import Searcher, Suggestion
from automl.search.searchers.bayesian import BayesianOptions, BayesianSearcher
from automl.search.searchers.evolution import RegularizedEvolution
from automl.search.searchers.random import RandomSearcher
from automl.search.searchers.tree_search import Effort
from automl.search.space import SearchSpace
from automl.tracks.track import Memory, installed_cards, track_of

SpaceOf = Callable[[Run, MemoryBound | None], SearchSpace]
MemoryOf = Callable[[Run], Memory | None]
_SearcherKey = tuple[str, MemoryBound | None]  # run, what fits on the device
_SEARCHERS_KEPT = 4  # a study's workers train on few types of devices


@dataclass(frozen=True, slots=True)
class Proposal:
    """Proposal, as `trial_proposed` records it.

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
    """Maker of the proposals of one study, as its log or another replay of it has the study.

    What it keeps from one proposal to the next makes the next one quicker, never different.

    Args:
        space_of: gives the search space of a run.
        memory_of: gives what trainings of a run take; by default that needs no care.
    """

    def __init__(self, space_of: SpaceOf, memory_of: MemoryOf = lambda _: None) -> None:
        self._space_of, self._memory_of = space_of, memory_of
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
        searcher = self._searcher(run, candidate_bound(self._memory_of(run), run, prefix, trial))
        history = self._reader.read(prefix, trial.generation, trial.snapshot)
        return searcher.propose(history, np.random.default_rng([search.seed, number]))

    def _searcher(self, run: Run, bound: MemoryBound | None) -> Searcher:
        """Return the searcher of a run; with other bounds of memory it is another one."""
        make = _SEARCHERS[self._sections[run.name].strategy]
        return self._searchers.get((run.name, bound), lambda: make(self._space_of(run, bound)))


def recorded_spec(run: Run) -> StudySpec:
    """Return the specification that a run was opened with.

    Raises:
        ConfigError: this version refuses the specification that the log holds.
    """
    try:
        # an estimator's runs lack test rows, which is of no concern here
        return parse_spec(run.spec, installed_cards(), purpose=Purpose.ESTIMATOR)
    except ConfigError as error:
        raise ConfigError(
            f"Run {run.name} was opened with a specification that this version refuses.",
            "use the version of the platform that opened the run",
            error.problems,
        ) from error


def recorded_search(run: Run) -> SearchSection:
    """Return how the run was told to search.

    Raises:
        ConfigError: this version refuses the specification that the log holds.
    """
    return recorded_spec(run).search


def search_space(
    run: Run, memory: MemoryBound | None = None, sizes: Mapping[str, int | str] | None = None
) -> SearchSpace:
    """Return the search space of a run.

    Args:
        run: the run, which records its specification and what else the space depends on.
        memory: what fits on the device that a candidate is for.
        sizes: what `Dataset.size_facts` says of its snapshot; needed for runs that did not record
            what their space depends on.

    Raises:
        ConfigError: no seed is within the limits, or this version refuses the specification.
        DamagedDataError: a fact is missing.
        SearchSpaceExhaustedError: candidates as small as the seeds ran out of memory.
    """
    spec = recorded_spec(run)
    facts = run.space or SpaceFacts.of(sizes or {})
    return track_of(spec.task).space(spec.search, facts, memory)


def memory_of(run: Run) -> Memory | None:
    """Return what trainings of a run take; None where its track needs no care of it."""
    return track_of(recorded_spec(run).task).memory


def _is_taken(candidate: Candidate, trial: Trial, ticket: Study, head: Study) -> bool:
    """Return whether a comparable trial got the candidate after the ticket."""
    return any(
        peer.candidate is not None
        and peer.number != trial.number
        and peer.generation == trial.generation
        and peer.snapshot == trial.snapshot
        and peer.candidate.identity == candidate.identity
        for peer in changed_trials(ticket, head)
    )
