"""Replay of proposals: whether every one of a log follows from the log before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from automl.domain.events import Event, TrialOpened, TrialProposed
from automl.domain.study import Run, Study, replay
from automl.errors import AutoMLError, ConfigError, DamagedDataError, SearchSpaceExhaustedError
from automl.runs.proposals import (
    MemoryOf,
    Proposal,
    Proposer,
    SpaceOf,
    memory_of,
    recorded_spec,
    search_space,
)
from automl.search.memory_model import MemoryBound
from automl.search.space import SearchSpace
from automl.storage.home import Home, no_study
from automl.tracks.track import track_of


@dataclass(frozen=True, slots=True)
class Rederivation:
    """One proposal of the log, made again.

    Attributes:
        recorded: the proposal in the log.
        derived: what follows from the log before it; None if nothing was left to propose.
    """

    recorded: TrialProposed
    derived: Proposal | None

    @property
    def different_fields(self) -> list[str]:
        """The fields in which the two differ, `candidate` if nothing was derived."""
        if self.derived is None:
            return ["candidate"]
        recorded, derived = self.recorded.candidate, self.derived.candidate
        fields = type(recorded).model_fields
        found = [name for name in fields if getattr(recorded, name) != getattr(derived, name)]
        for name in ("based_on", "strategy", "repeats"):
            if getattr(self.recorded, name) != getattr(self.derived, name):
                found.append(name)
        return found


def replay_document(home: Home, name: str) -> dict[str, Any]:
    """Return the document of `automl replay`: how many proposals there are, and which differ.

    Raises:
        ConfigError: there is no such study, or this version does not search as a run was searched.
        StorageError: the log cannot be read.
    """
    events = home.study_log(name).read()
    if not events:
        raise no_study(home, name)

    def space_of(run: Run, bound: MemoryBound | None) -> SearchSpace:
        _check_version(run)
        return search_space(run, bound)

    count, different = 0, []
    for proposal in rederive(events, space_of, memory_of):
        count += 1
        trial = proposal.recorded.n
        different += [{"trial": trial, "field": field} for field in proposal.different_fields]
    return {
        "schema": 1, "study": name, "ok": not different, "trials": count, "different": different,
    }  # fmt: skip


def _check_version(run: Run) -> None:
    version = 1 if run.space is None else run.space.version
    present = track_of(recorded_spec(run).task).version
    if version != present:
        raise ConfigError(
            f"Run {run.name} was searched by version {version} of the search; this release makes "
            f"the proposals of version {present}.",
            "replay it with the release that ran it",
        )


def rederive(
    events: Iterable[tuple[int, Event]], space_of: SpaceOf, memory: MemoryOf = lambda _: None
) -> Iterator[Rederivation]:
    """Yield every proposal of a log, made again from the events before it, in one pass.

    Nothing is computed from a recorded candidate: what has been derived stands in its place, so
    that a log whose candidates were removed gives the same answers, and of a log in which one was
    altered only that one differs. A proposal that follows from the recorded candidates counts as
    derived too: so those after a change of the searcher do not all differ because of the one.

    Args:
        events: (log version, event) in log order.
        space_of: gives the search space of a run.
        memory: gives what trainings of a run take; by default that needs no care.

    Raises:
        ConfigError: this version cannot search as a run was told to.
        DamagedDataError: the events contradict each other.
    """
    recorded, derived = _Replay(Proposer(space_of, memory)), _Replay(Proposer(space_of, memory))
    is_told_apart = False
    for version, group in itertools.groupby(events, key=lambda row: row[0]):
        told = [event for _, event in group]
        instead: list[Event] = []
        for event in told:
            if not isinstance(event, TrialProposed) or recorded.ignores(version, event):
                instead.append(event)
                continue
            found = Rederivation(event, derived.propose(event.n))
            if found.different_fields and is_told_apart:
                again = Rederivation(event, recorded.propose_if_able(event.n))
                found = found if again.different_fields else again
            is_told_apart = is_told_apart or bool(found.different_fields)
            instead.append(_with(event, found.derived))
            yield found
        recorded.advance(version, told)
        derived.advance(version, instead)


def _with(event: TrialProposed, proposal: Proposal | None) -> TrialProposed:
    if proposal is None:
        return event
    changes = {
        "candidate": proposal.candidate,
        "based_on": proposal.based_on,
        "repeats": proposal.repeats,
    }
    return event.model_copy(update=changes)


@dataclass(slots=True)
class _Replay:
    """Replay of the log, up to some version.

    Attributes:
        proposer: makes the proposals again.
        study: the study after that version.
        tickets: the study after the version that opened each trial without a candidate.
    """

    proposer: Proposer
    study: Study = field(default_factory=Study)
    tickets: dict[int, Study] = field(default_factory=dict)

    def advance(self, version: int, events: list[Event]) -> None:
        self.study = replay(((version, event) for event in events), self.study)
        for event in events:
            if isinstance(event, TrialOpened):
                self.tickets[event.n] = self.study
            elif isinstance(event, TrialProposed):
                self.tickets.pop(event.n, None)

    def ignores(self, version: int, event: TrialProposed) -> bool:
        """Return whether a replay ignores the proposal, because another one or an outcome stands.

        Raises:
            DamagedDataError: the trial was not opened by an earlier version.
        """
        if event.n >= len(self.study.trials):
            raise DamagedDataError(
                f"Version {version} of the study log proposes trial {event.n}, which no version "
                "before it opened.",
                "the log was damaged; see docs/runbook.md",
            )
        return not self.study.trials[event.n].is_unproposed

    def propose(self, number: int) -> Proposal | None:
        try:
            return self.proposer.propose(self.tickets[number], self.study, number)
        except SearchSpaceExhaustedError:
            return None

    def propose_if_able(self, number: int) -> Proposal | None:
        """As `propose`, but an altered candidate among the others may be none of the space."""
        try:
            return self.propose(number)
        except AutoMLError:
            return None
