"""The step `run_worker`: claim a trial, train it, record the outcome, and go on."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from automl.domain.events import SearchEnd
from automl.domain.trial import Measurement, Outcome, Trial
from automl.errors import DivergedError, LeaseLostError, OutOfMemoryError, StorageError
from automl.steps.context import StepContext
from automl.steps.proposals import search_space, space_facts
from automl.steps.signals import StopSignal
from automl.steps.training import TrialTrainer, TrialTraining
from automl.steps.trials import Claim, TrialResult, TrialSource, end_search, record_result
from automl.storage.leases import KeepAlive
from automl.training.problem import StopReason

_FINISH_BEFORE_S = 1.5  # trials stop so long before the deadline, to record their result in time
_TOO_LATE_S = 6.0  # no trial starts with less time left
_KEEP_SLOT_S = 12.0  # a slice does not end so shortly before the deadline
_POLL_S = 1.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class WorkerReport:
    """What one slice of a worker did.

    Attributes:
        state: `slice_ended` or `search_ended`.
        trials: the trials it worked on.
        best: the best score among them.
    """

    state: str = "search_ended"
    trials: list[int] = field(default_factory=list)
    best: float | None = None

    def begin(self, number: int) -> None:
        """Add a trial; one that is resumed counts once."""
        if number not in self.trials:
            self.trials.append(number)

    def note(self, score: float | None) -> None:
        """Keep the score if it is the best so far."""
        if score is not None and (self.best is None or score > self.best):
            self.best = score

    def to_json(self) -> dict[str, object]:
        """Return the step's result with a label for people."""
        shown = ", ".join(str(number) for number in self.trials[-8:]) or "none"
        label = f"trials {shown}" + (f" · best {self.best:.4f}" if self.best is not None else "")
        return {"state": self.state, "trials": self.trials, "best": self.best, "label": label}


def run_worker(
    context: StepContext, worker: int, stop: StopSignal, *, slice_s: float | None = None
) -> WorkerReport:
    """Train trials until the search or the slice ends, or the process is asked to stop.

    Args:
        context: the step's context; the run must be open.
        worker: index of the worker within the run.
        stop: becomes set on SIGTERM; the trial is then checkpointed and given back.
        slice_s: how long the pool slot may be kept; None for the whole search.

    Raises:
        StorageError: the store failed, or the run was superseded.
    """
    run, report = context.opened_run(), WorkerReport()

    def remaining_s() -> float:
        return (run.deadline - context.clock.now()) / timedelta(seconds=1)

    if remaining_s() < _TOO_LATE_S:  # its pool slot came late: it only says that the search is over
        end_search(context, SearchEnd.DEADLINE)
        return report
    name = f"{context.run}/{worker}"
    trainer = TrialTrainer.load(context, run)
    source = TrialSource(context, name, search_space(space_facts(trainer.manifest)))
    started_s = time.monotonic()

    def should_stop() -> StopReason | None:
        left_s = remaining_s()
        if stop.is_set():
            return StopReason.SIGNAL
        if left_s <= _FINISH_BEFORE_S:
            return StopReason.DEADLINE
        is_over = slice_s is not None and time.monotonic() - started_s >= slice_s
        return StopReason.SLICE if is_over and left_s > _KEEP_SLOT_S else None

    while should_stop() not in {StopReason.SLICE, StopReason.SIGNAL}:
        if remaining_s() < _TOO_LATE_S:
            end_search(context, SearchEnd.DEADLINE)
            return report
        claim = source.take()
        if claim is None:
            if not context.opened_run().is_searching:
                return report
            time.sleep(_POLL_S)
            continue
        report.begin(claim.trial.number)
        trial = work_on(context, trainer, claim, TrialTraining(name, should_stop))
        report.note(trial.measurement.score)
    report.state = "slice_ended"
    return report


class Trainer(Protocol):
    """Trains one claimed trial."""

    def train(self, trial: Trial, training: TrialTraining, alive: KeepAlive) -> TrialResult:
        """Return what the training came to; as `TrialTrainer.train` does."""


def work_on(context: StepContext, trainer: Trainer, claim: Claim, training: TrialTraining) -> Trial:
    """Evaluate the claimed trial, or give it back if its lease is lost; return it either way.

    A store that was away for longer than a lease lives without renewal ends no worker: whoever
    claims the trial next, this worker or another, resumes it from its checkpoint.
    """
    trial = claim.trial
    log.info("trial %d starts, attempt %d", trial.number, trial.attempt)
    try:
        with claim.lease.keep_alive() as alive:
            result = _train(trainer, trial, training, alive)
            alive.check()
            recorded = record_result(context, trial, result)
    except LeaseLostError as error:
        log.warning("trial %d, attempt %d: %s", trial.number, trial.attempt, error)
        return record_result(context, trial, TrialResult(None, Measurement(), "its lease was lost"))
    claim.lease.release()
    return recorded


def _train(
    trainer: Trainer, trial: Trial, training: TrialTraining, alive: KeepAlive
) -> TrialResult:
    """Train the trial; an error that lies in the trial is its result."""
    try:
        return trainer.train(trial, training, alive)
    except StorageError:
        raise
    except DivergedError as error:
        return TrialResult(Outcome.DIVERGED, Measurement(), str(error))
    except OutOfMemoryError as error:
        return TrialResult(Outcome.OUT_OF_MEMORY, Measurement(), str(error))
    except Exception as error:
        log.warning("trial %d failed", trial.number, exc_info=True)
        return TrialResult(Outcome.FAILED, Measurement(), f"{type(error).__name__}: {error}")


def give_back(context: StepContext, worker: int) -> list[int]:
    """Free the leases that a dead worker held, so that others may take its trials at once.

    Returns:
        The numbers of the trials given back.
    """
    name, freed = f"{context.run}/{worker}", []
    for trial in context.record.refresh().trials:
        if trial.outcome is None and context.leases.holder(str(trial.number)) == name:
            lease = context.leases.acquire(str(trial.number), name)
            if lease is not None:
                lease.release()
                freed.append(trial.number)
    return freed
