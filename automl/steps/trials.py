"""Taking a trial: open or take over, propose, claim. All decisions are made on the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.events import (
    Event,
    SearchEnd,
    SearchEnded,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
)
from automl.domain.study import Run, Study, replay
from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.errors import SearchSpaceExhaustedError
from automl.search.network_morphism import NetworkMorphismSpace
from automl.search.random import RandomSearcher
from automl.steps.context import StepContext
from automl.storage.leases import Lease

_MAX_DEATHS = 3  # attempts that may die before a trial is given up as LOST


@dataclass(frozen=True, slots=True)
class Claim:
    """A trial that this worker may train, and the lease it holds on it."""

    trial: Trial
    lease: Lease


class TrialSource:
    """Where one worker gets its trials from.

    Args:
        context: the step's context.
        worker: the worker's name, unique among those alive.
        space: the search space of the snapshot.
    """

    def __init__(self, context: StepContext, worker: str, space: NetworkMorphismSpace) -> None:
        self._context, self._worker = context, worker
        self._searcher = RandomSearcher(space)

    def take(self) -> Claim | None:
        """Return the next trial to train, or None if none may be started now.

        Interrupted trials come first. None means that the search has ended, or that all trials
        that `max_trials` allows are being trained by others.
        """
        context = self._context
        while True:
            study = context.record.refresh()
            run = study.run(context.run)
            if run is None or run.search_end is not None:
                return None
            claim = self._take_over(study, run)
            if claim is not None:
                return claim
            before = len(study.trials)
            study = context.record.commit(self._open_or_end)
            if len(study.trials) == before:  # neither this worker nor another opened one
                return None

    def _take_over(self, study: Study, run: Run) -> Claim | None:
        for trial in study.comparable(run):
            if trial.state is TrialState.FINISHED:
                continue
            lease = self._context.leases.acquire(str(trial.number), self._worker)
            if lease is None:
                continue
            claimed = self._claim(trial.number)
            if claimed is not None:
                return Claim(claimed, lease)
            lease.release()
        return None

    def _may_open(self, study: Study) -> bool:
        run, limit = study.run(self._context.run), self._context.spec.search.max_trials
        if run is None or limit is None:
            return run is not None
        unfinished = sum(t.state is not TrialState.FINISHED for t in study.comparable(run))
        return len(study.finished_in(run.name)) + unfinished < limit

    def _open_or_end(self, study: Study) -> Sequence[Event]:
        context, run = self._context, study.run(self._context.run)
        now = context.clock.now()
        if run is None or run.search_end is not None:
            return ()
        limit = context.spec.search.max_trials
        if limit is not None and len(study.finished_in(run.name)) >= limit:
            return (SearchEnded(at=now, run=run.name, reason=SearchEnd.MAX_TRIALS),)
        if not self._may_open(study):
            return ()
        number = len(study.trials)
        return (TrialOpened(at=now, n=number, run=run.name, worker=self._worker),)

    def _claim(self, number: int) -> Trial | None:
        """Propose the trial's candidate if it has none, and claim the next attempt."""
        prefix = self._prefix_of_ticket(number)
        study = self._context.record.commit(lambda study: self._claim_events(study, prefix, number))
        trial = study.trials[number]
        is_claimed = trial.state is TrialState.CLAIMED and trial.worker == self._worker
        return trial if is_claimed else None

    def _claim_events(self, study: Study, prefix: Study, number: int) -> Sequence[Event]:
        trial, now = study.trials[number], self._context.clock.now()
        run = self._context.run
        if trial.state is TrialState.FINISHED:
            return ()
        if trial.deaths + (trial.state is TrialState.CLAIMED) > _MAX_DEATHS:
            cause = f"its process died in {trial.deaths + 1} attempts"
            return (
                TrialFinished(
                    at=now, n=number, attempt=trial.attempt, run=run, outcome=Outcome.LOST,
                    measurement=Measurement(), cause=cause,
                ),
            )  # fmt: skip
        events: list[Event] = []
        if trial.candidate is None:
            try:
                events.append(self._proposal(study, prefix, trial))
            except SearchSpaceExhaustedError as error:
                return (
                    TrialFinished(
                        at=now, n=number, attempt=trial.attempt, run=run, outcome=Outcome.FAILED,
                        measurement=Measurement(), cause=str(error),
                    ),
                    SearchEnded(at=now, run=run, reason=SearchEnd.EXHAUSTED),
                )  # fmt: skip
        events.append(
            TrialClaimed(at=now, n=number, attempt=trial.attempt + 1, run=run, worker=self._worker)
        )
        return events

    def _proposal(self, study: Study, prefix: Study, trial: Trial) -> TrialProposed:
        """Return the proposal from the ticket's prefix, or from the head if that is taken."""
        candidate, based_on = self._propose(prefix, trial), prefix.version
        taken = {t.candidate.identity for t in self._peers(study, trial) if t.candidate is not None}
        if candidate.identity in taken:
            candidate, based_on = self._propose(study, trial), study.version
        return TrialProposed(
            at=self._context.clock.now(),
            n=trial.number,
            candidate=candidate,
            based_on=based_on,
            strategy=self._context.spec.search.strategy,
        )

    def _propose(self, study: Study, trial: Trial) -> Candidate:
        rng = np.random.default_rng([self._context.spec.search.seed, trial.number])
        return self._searcher.propose(self._peers(study, trial), rng)

    def _peers(self, study: Study, trial: Trial) -> list[Trial]:
        """Return the trials that the proposal may look at."""
        return [
            peer
            for peer in study.trials
            if peer.number != trial.number
            and peer.generation == trial.generation
            and peer.snapshot == trial.snapshot
        ]

    def _prefix_of_ticket(self, number: int) -> Study:
        record = self._context.record
        trial = record.study.trials[number]
        if record.study.version == trial.opened_in:
            return record.study
        if trial.candidate is not None:
            return record.study
        return replay(
            (version, event) for version, event in record.log.read() if version <= trial.opened_in
        )


def end_search(context: StepContext, reason: SearchEnd) -> Study:
    """Record that no further trial starts in this run; the first reason stands."""

    def decide(study: Study) -> Sequence[Event]:
        run = study.run(context.run)
        if run is None or run.search_end is not None:
            return ()
        return (SearchEnded(at=context.clock.now(), run=context.run, reason=reason),)

    return context.record.commit(decide)
