"""Workers: they claim a trial, train it, record the outcome, and go on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from automl.domain.events import SearchEnd
from automl.domain.ranking import ranked_winners
from automl.domain.study import Run, Study
from automl.domain.training import StopReason
from automl.domain.trial import Measurement, Outcome, Trial
from automl.errors import (
    LeaseLostError,
    StorageError,
    StorageFullError,
)
from automl.machine.labels import say_label
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext
from automl.runs.deadline import WorkerClock
from automl.runs.proposals import memory_of, search_space
from automl.runs.training import TrialTrainer, TrialTraining
from automl.runs.trials import Claim, TrialResult, TrialSource, end_search, record_result
from automl.runs.worker_report import WorkerReport
from automl.search.memory_model import MemoryBound
from automl.search.space import SearchSpace
from automl.storage.leases import KeepAlive

_POLL_S = 1.0

log = logging.getLogger(__name__)


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
        StorageError: the store failed.
        SearchError: the run was never opened, or has been closed without success.
    """
    run, report = context.opened_run(), WorkerReport()
    if run.continues is not None:
        return report  # also after the deadline, where a search would take what others began
    clock = WorkerClock(context, run.deadline, stop, slice_s)
    if clock.is_too_late and not _begun(end_search(context, SearchEnd.DEADLINE), run):
        return report
    name = f"{context.run}/{worker}"
    trainer = TrialTrainer.load(context, run)
    training = TrialTraining(name, clock.stop_reason, lambda: clock.left_s)

    def work(claim: Claim) -> None:
        report.begin(claim.trial.number)
        say_label(label_of(claim.trial.number, context.record.study.comparable(run)))
        report.note(work_on(context, trainer, claim, training).measurement)

    with clock:
        if not _work_to_the_end(context, clock, _source(context, name, trainer), work):
            report.state, report.left_s = "slice_ended", max(0.0, clock.left_s)
    return report


def label_of(number: int, trials: Iterable[Trial]) -> str:
    """Return what people see of a worker: the trial that it trains and the best score so far."""
    best = next(iter(ranked_winners(trials)), None)
    score = None if best is None else best.measurement.score
    return f"trial {number}" + (f" · best {score:.4f}" if score is not None else "")


def _source(context: StepContext, name: str, trainer: TrialTrainer) -> TrialSource:
    """Return what gives the worker its trials."""

    def space(opener: Run, bound: MemoryBound | None) -> SearchSpace:
        return search_space(opener, bound, trainer.sizes)

    return TrialSource(context, name, space, trainer.device, memory_of)


def _work_to_the_end(
    context: StepContext, clock: WorkerClock, source: TrialSource, work: Callable[[Claim], None]
) -> bool:
    """Work on trials until the search ends; return False if the worker has to stop before."""
    while clock.stop_reason() not in {StopReason.SLICE, StopReason.SIGNAL}:
        if clock.is_too_late:
            end_search(context, SearchEnd.DEADLINE)
            while not clock.is_asked_to_stop and (claim := source.take_begun()) is not None:
                work(claim)
            return True
        claim = source.take()
        if claim is not None:
            work(claim)
        elif context.opened_run().is_searching:
            time.sleep(_POLL_S)
        else:
            return True
    return False


def _begun(study: Study, run: Run) -> list[Trial]:
    """Return the trials that were interrupted, or are being trained."""
    return [t for t in study.comparable(run) if t.attempt > 0 and t.outcome is None]


class Trainer(Protocol):
    """Trains one claimed trial."""

    def train(self, trial: Trial, training: TrialTraining, alive: KeepAlive) -> TrialResult:
        """Return what the training came to; as `TrialTrainer.train` does."""


def work_on(context: StepContext, trainer: Trainer, claim: Claim, training: TrialTraining) -> Trial:
    """Evaluate the claimed trial, or give it back if its lease is lost; return it either way.

    A store that was away for longer than a lease lives without renewal ends no worker: whoever
    claims the trial next, this worker or another, resumes it from its checkpoint.

    Raises:
        StorageError: the store failed; StorageFullError: it is full, and the trial is given back.
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
    except StorageFullError as error:
        _give_back(context, claim, error.message)
        raise
    claim.lease.release()
    return recorded


def _give_back(context: StepContext, claim: Claim, cause: str) -> None:
    """Give the trial back, so that the attempt does not count as one in which a process died.

    A disk that has no room for a checkpoint often has some for this; where not, the lease runs out.
    """
    try:
        record_result(context, claim.trial, TrialResult(None, Measurement(), cause))
        claim.lease.release()
    except StorageError as error:
        log.warning("trial %d could not be given back: %s", claim.trial.number, error)


def _train(
    trainer: Trainer, trial: Trial, training: TrialTraining, alive: KeepAlive
) -> TrialResult:
    """Train the trial; an error that lies in the trial is its result."""
    try:
        return trainer.train(trial, training, alive)
    except StorageError:
        raise
    except Exception as error:
        log.warning("trial %d failed", trial.number, exc_info=True)
        return TrialResult(Outcome.FAILED, Measurement(), f"{type(error).__name__}: {error}")
