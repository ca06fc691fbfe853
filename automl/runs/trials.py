"""Taking a trial: open or take over, propose, claim. All decisions are made on the log."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from automl.domain.events import (
    Event,
    SearchEnd,
    SearchEnded,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
    TrialReleased,
)
from automl.domain.study import Run, Study
from automl.domain.trial import Device, Measurement, Outcome, Trial, TrialState
from automl.errors import LeaseLostError, SearchSpaceExhaustedError
from automl.runs.checkpoints import newest_checkpoint
from automl.runs.context import StepContext
from automl.runs.proposals import MemoryOf, Proposer, SpaceOf
from automl.storage.leases import KeepAlive, Lease

_LOOK_EVERY_S = 15.0  # how long a dead worker's trial may wait while others can be started
_MAX_DEATHS = 3  # attempts that may die before a trial is given up as LOST

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """A trial that this worker may train, and the lease it holds on it."""

    trial: Trial
    lease: Lease


class TrialSource:
    """Source of the trials of one worker.

    Args:
        context: the step's context.
        worker: the worker's name, unique among those alive.
        space_of: gives the search space of a run.
        device: where the worker trains; None if it does not.
        memory_of: gives what trainings of a run take; by default that needs no care.
    """

    def __init__(
        self,
        context: StepContext,
        worker: str,
        space_of: SpaceOf,
        device: Device | None = None,
        memory_of: MemoryOf = lambda _: None,
    ) -> None:
        self._context, self._worker = context, worker
        self._proposer, self._device = Proposer(space_of, memory_of), device
        self._looked_s = -math.inf  # when the trials of others were last looked at

    def take(self) -> Claim | None:
        """Return the next trial to train, or None if none may be started now.

        Trials that were given back come first, and now and then those whose worker has died. None
        means that the run or its search is over, or that all trials that `max_trials` allows are
        being trained by others.
        """
        context = self._context
        while True:
            study = context.record.refresh()
            run = study.run(context.run)
            if run is None or not run.is_searching:
                return None
            claim = self._take_over(study, self._free(study, run))
            if claim is not None:
                return claim
            before = len(study.trials)
            study = context.record.commit(self._open_or_end)
            claim = self._take_over(study, [t for t in study.trials[before:] if self._is_own(t)])
            if claim is not None:
                return claim
            if len(study.trials) == before:  # neither this worker nor another opened one
                return self._take_over(study, study.comparable_unfinished(run))

    def _free(self, study: Study, run: Run) -> Sequence[Trial]:
        """Return the trials that nobody may be working on.

        Whether the worker of a claimed trial lives, only its lease tells: asking for all of them at
        every claim would cost a request per worker.
        """
        trials, now_s = study.comparable_unfinished(run), time.monotonic()
        if now_s - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now_s
            return trials
        return [t for t in trials if t.state is TrialState.PROPOSED or self._is_own(t)]

    def _is_own(self, trial: Trial) -> bool:
        return trial.state is TrialState.OPENED and trial.worker == self._worker

    def take_begun(self) -> Claim | None:
        """Return an interrupted trial that may get its outcome although the search is over.

        Its best weights so far count, as those of a trial that the deadline finds in training. None
        means that no more are left, or that the winner is chosen.
        """
        study = self._context.record.refresh()
        run = study.run(self._context.run)
        if run is None or not run.is_undecided:
            return None
        return self._take_over(
            study, [t for t in study.comparable_unfinished(run) if t.attempt > 0]
        )

    def _take_over(self, study: Study, trials: Sequence[Trial]) -> Claim | None:
        for trial in trials:
            if trial.state is TrialState.FINISHED or not self._may_claim(study, trial):
                continue
            lease = self._context.leases.acquire(str(trial.number), self._worker)
            if lease is None:
                continue
            try:
                # A claim in a crowd may take longer than the lease lives.
                with lease.keep_alive() as alive:
                    claimed = self._claim(trial, alive)
            except LeaseLostError as error:
                log.warning("trial %d is not claimed: %s", trial.number, error)
                continue
            if claimed is not None:
                return Claim(claimed, lease)
            lease.release()
        return None

    def _may_claim(self, study: Study, trial: Trial) -> bool:
        """Return whether the trial may get its outcome in this run, as far as `max_trials` goes."""
        limit, run = self._context.spec.search.max_trials, study.run(self._context.run)
        if limit is None or run is None:
            return run is not None
        others = sum(
            study.trials[number].claimed_in == run.name
            and study.trials[number].state is TrialState.CLAIMED
            for number in study.unfinished
            if number != trial.number
        )
        return run.outcomes + others < limit

    def _may_open(self, study: Study) -> bool:
        run, limit = study.run(self._context.run), self._context.spec.search.max_trials
        if run is None or limit is None:
            return run is not None
        unfinished = len(study.comparable_unfinished(run))
        return run.outcomes + unfinished < limit

    def _open_or_end(self, study: Study) -> Sequence[Event]:
        context, run = self._context, study.run(self._context.run)
        now = context.clock.now()
        if run is None or not run.is_searching:
            return ()
        limit = context.spec.search.max_trials
        if limit is not None and run.outcomes >= limit:
            return (SearchEnded(at=now, run=run.name, reason=SearchEnd.MAX_TRIALS),)
        if not self._may_open(study):
            return ()
        number = len(study.trials)
        return (
            TrialOpened(at=now, n=number, run=run.name, worker=self._worker, device=self._device),
        )

    def _claim(self, seen: Trial, alive: KeepAlive) -> Trial | None:
        """Propose the trial's candidate if it has none, and claim the next attempt.

        Args:
            seen: the trial as it was before its lease was acquired.
            alive: what renews the lease.

        Returns:
            The claimed trial; None if it needs no training, or somebody else has claimed it since.

        Raises:
            LeaseLostError: the lease is lost, and the trial is another's to claim.
        """
        checkpoint = newest_checkpoint(self._context, seen)
        decided: Sequence[Event] = ()

        def decide(study: Study) -> Sequence[Event]:
            nonlocal decided
            decided = self._claim_events(study, seen, checkpoint)
            alive.check()
            return decided

        trial = self._context.record.commit(decide).trials[seen.number]
        is_claimed = trial.state is TrialState.CLAIMED and trial.attempt == seen.attempt + 1
        return trial if is_claimed and decided else None

    def _claim_events(self, study: Study, seen: Trial, checkpoint: str | None) -> Sequence[Event]:
        number, run = seen.number, self._context.run
        trial, now = study.trials[number], self._context.clock.now()
        current = study.run(run)
        if current is None or not self._may_claim(study, trial):
            return ()
        if not current.is_searching and not (trial.attempt > 0 and current.is_undecided):
            return ()
        # A process that was frozen after it acquired the lease must not fence off its successor.
        if trial.state is TrialState.FINISHED or trial.attempt != seen.attempt:
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
                events.append(self._proposal(study, trial))
            except SearchSpaceExhaustedError as error:
                return (
                    TrialFinished(
                        at=now, n=number, attempt=trial.attempt, run=run, outcome=Outcome.FAILED,
                        measurement=Measurement(), cause=str(error),
                    ),
                    SearchEnded(at=now, run=run, reason=SearchEnd.EXHAUSTED),
                )  # fmt: skip
        events.append(
            TrialClaimed(
                at=now, n=number, attempt=trial.attempt + 1, run=run, worker=self._worker,
                checkpoint=checkpoint,
            )
        )  # fmt: skip
        return events

    def _proposal(self, study: Study, trial: Trial) -> TrialProposed:
        ticket = self._context.record.ticket(trial.number)
        proposal = self._proposer.propose(ticket, study, trial.number)
        return TrialProposed(
            at=self._context.clock.now(),
            n=trial.number,
            candidate=proposal.candidate,
            based_on=proposal.based_on,
            strategy=proposal.strategy,
            repeats=proposal.repeats,
        )


@dataclass(frozen=True, slots=True)
class TrialResult:
    """Result of a training, as the log records it.

    Attributes:
        outcome: how the trial ended; None means that it is to be given back.
        measurement: what it measured.
        cause: why it did not complete.
    """

    outcome: Outcome | None
    measurement: Measurement
    cause: str


def record_result(context: StepContext, claimed: Trial, result: TrialResult) -> Trial:
    """Record what became of a claimed trial, and return the trial as the log tells it.

    Nothing is recorded if a later attempt has been claimed: then that one counts.
    """

    def decide(study: Study) -> Sequence[Event]:
        trial = study.trials[claimed.number]
        if trial.state is not TrialState.CLAIMED or trial.attempt != claimed.attempt:
            return ()
        n, attempt, now = claimed.number, claimed.attempt, context.clock.now()
        if result.outcome is None:
            return (TrialReleased(at=now, n=n, attempt=attempt, reason=result.cause),)
        return (
            TrialFinished(
                at=now, n=n, attempt=attempt, run=context.run, outcome=result.outcome,
                measurement=result.measurement, cause=result.cause,
            ),
        )  # fmt: skip

    trial = context.record.commit(decide).trials[claimed.number]
    if trial.attempt != claimed.attempt:
        log.warning(
            "trial %d: attempt %d came too late, attempt %d of %s counts",
            trial.number, claimed.attempt, trial.attempt, trial.worker,
        )  # fmt: skip
    elif result.outcome is None:
        log.info("trial %d is given back: %s", trial.number, result.cause)
    else:
        score = result.measurement.score
        shown = "no score" if score is None else f"{score:.4f}"
        log.info("trial %d %s: %s %s", trial.number, result.outcome.value, shown, result.cause)
    return trial


def end_search(context: StepContext, reason: SearchEnd) -> Study:
    """Record that no further trial starts in this run; the first reason stands."""

    def decide(study: Study) -> Sequence[Event]:
        run = study.run(context.run)
        if run is None or not run.is_searching:
            return ()
        return (SearchEnded(at=context.clock.now(), run=context.run, reason=reason),)

    return context.record.commit(decide)
