"""The step `run_worker`: claim a trial, train it, record the outcome, and go on."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import timedelta

from automl.domain.events import SearchEnd, TrialFinished, TrialReleased
from automl.domain.trial import Measurement, Outcome, Trial
from automl.errors import DivergedError, LeaseLostError, OutOfMemoryError, StorageError
from automl.steps.context import StepContext
from automl.steps.proposals import search_space, space_facts
from automl.steps.signals import StopSignal
from automl.steps.training import TrialTrainer, TrialTraining
from automl.steps.trials import Claim, TrialSource, end_search
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
    run = context.opened_run()
    name = f"{context.run}/{worker}"
    trainer = TrialTrainer.load(context, run)
    source = TrialSource(context, name, search_space(space_facts(trainer.manifest)))
    report, started_s = WorkerReport(), time.monotonic()

    def remaining_s() -> float:
        return (run.deadline - context.clock.now()) / timedelta(seconds=1)

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
            current = context.record.study.run(context.run)
            if current is None or current.search_end is not None:
                return report
            time.sleep(_POLL_S)
            continue
        report.trials.append(claim.trial.number)
        trial = _evaluate(context, trainer, claim, TrialTraining(name, should_stop))
        report.note(trial.measurement.score)
    report.state = "slice_ended"
    return report


def _evaluate(
    context: StepContext, trainer: TrialTrainer, claim: Claim, training: TrialTraining
) -> Trial:
    """Train the claimed trial, record what became of it, and return it as the log tells it."""
    trial = claim.trial
    log.info("trial %d starts, attempt %d", trial.number, trial.attempt)
    outcome, measurement, cause = Outcome.FAILED, Measurement(), ""
    with claim.lease.keep_alive() as alive:
        try:
            result = trainer.train(trial, training, alive.lost)
        except (LeaseLostError, StorageError):
            raise
        except DivergedError as error:
            outcome, cause = Outcome.DIVERGED, str(error)
        except OutOfMemoryError as error:
            outcome, cause = Outcome.OUT_OF_MEMORY, str(error)
        except Exception as error:
            log.warning("trial %d failed", trial.number, exc_info=True)
            cause = f"{type(error).__name__}: {error}"
        else:
            if result.outcome is None:
                _release(context, trial, result.cause)
                claim.lease.release()
                return trial
            outcome, measurement, cause = result.outcome, result.measurement, result.cause
        if alive.lost.is_set():
            raise LeaseLostError(
                f"The lease of trial {trial.number} was lost while it was trained.",
                "another worker has taken the trial over; nothing needs doing",
            )
        study = context.record.commit(
            lambda study: (
                ()
                if study.trials[trial.number].attempt != trial.attempt
                or study.trials[trial.number].outcome is not None
                else (
                    TrialFinished(
                        at=context.clock.now(),
                        n=trial.number,
                        attempt=trial.attempt,
                        run=context.run,
                        outcome=outcome,
                        measurement=measurement,
                        cause=cause,
                    ),
                )
            )
        )
    claim.lease.release()
    shown = f"{measurement.score:.4f}" if measurement.score is not None else "no score"
    log.info("trial %d %s: %s %s", trial.number, outcome.value, shown, cause)
    return study.trials[trial.number]


def _release(context: StepContext, trial: Trial, reason: str) -> None:
    log.info("trial %d is given back: %s", trial.number, reason)
    context.record.commit(
        lambda study: (
            ()
            if study.trials[trial.number].attempt != trial.attempt
            else (
                TrialReleased(
                    at=context.clock.now(), n=trial.number, attempt=trial.attempt, reason=reason
                ),
            )
        )
    )


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
