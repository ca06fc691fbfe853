"""The training loop: weights and their measurement from a problem, stoppable at every step."""

from __future__ import annotations

import gc
import logging
from contextlib import closing
from dataclasses import replace

import torch

from automl.domain.training import StopReason
from automl.errors import DivergedError, OutOfMemoryError
from automl.training.checkpoint import Checkpoint
from automl.training.device import is_out_of_memory, repeatable
from automl.training.heap import keep_freed_memory, return_freed_memory
from automl.training.problem import FitHooks, FitProblem, FitResult, InitialWeights
from automl.training.state import Training

_SAVE_INTERVAL_S = 60.0
_SAVE_SHARE = 20  # saving takes at most one part in this many of the time
_SMALLEST_MICRO_BATCH = 8

log = logging.getLogger(__name__)


def fit(
    problem: FitProblem, start: Checkpoint | InitialWeights | None, hooks: FitHooks
) -> FitResult:
    """Train until the budget is done, patience ends or the outside gives a reason to stop.

    A training that goes on from a checkpoint equals one that was never stopped, on the CPU and
    with the same number of threads bit for bit, unless its budget limits the seconds. A loss that
    is not finite ends it; what was best before that is kept.

    Where memory runs out, the training goes on from its last checkpoint with forward passes of half
    as many examples, whose gradients are summed up to the batch's.

    Args:
        problem: what to train and on what.
        start: a checkpoint of the same problem, weights to start from, or None for fresh ones.
        hooks: how the outside takes part.

    Raises:
        OutOfMemoryError: host or device lack the memory for a few examples.
    """
    torch.set_num_threads(problem.threads)
    keep_freed_memory()
    latest = start
    before = start.micro_batch if isinstance(start, Checkpoint) else 0
    micro_batch = before or problem.batch_size

    def save(checkpoint: Checkpoint) -> None:
        nonlocal latest
        latest = checkpoint
        hooks.save(checkpoint)

    while True:
        try:
            with repeatable(problem.device):
                return _fit(problem, latest, replace(hooks, save=save), micro_batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            micro_batch = _smaller(problem, micro_batch, error)
        _free(problem.device)


def _free(device: str) -> None:
    """Give back the memory of a training that broke off."""
    gc.collect()  # the frames that the error held
    return_freed_memory()
    if device == "cuda":
        torch.cuda.empty_cache()


def _smaller(problem: FitProblem, micro_batch: int, error: Exception) -> int:
    """Return how many examples to try after memory ran out with so many.

    Raises:
        OutOfMemoryError: they were a few already.
    """
    smaller = max(_SMALLEST_MICRO_BATCH, micro_batch // 2)
    if smaller >= micro_batch:
        raise OutOfMemoryError(
            f"{problem.device} lacks memory for {problem.architecture.summary()}, even "
            f"{micro_batch} examples at a time.",
            "search smaller networks or images, or run fewer workers",
        ) from error
    log.warning("memory ran out with %d examples at a time, trying %d", micro_batch, smaller)
    return smaller


def _fit(
    problem: FitProblem,
    start: Checkpoint | InitialWeights | None,
    hooks: FitHooks,
    micro_batch: int,
) -> FitResult:
    with closing(Training(problem, start, hooks, micro_batch)) as training:
        saving = _Saving(training, hooks)
        try:
            reason = _run(training, saving, hooks)
        except DivergedError as error:
            return training.result(StopReason.DIVERGED, str(error))
        saving.stop()  # a process that dies before the result is recorded need not train again
        return training.result(reason)


def _run(training: Training, saving: _Saving, hooks: FitHooks) -> StopReason | None:
    """Train, and return why the training ended before it was done, or None."""
    while not training.is_done:
        while not training.needs_head and training.has_steps:
            reason = hooks.should_stop()
            if reason is not None:
                if reason is StopReason.DEADLINE and training.is_unjudged:
                    training.finish_epoch()
                return reason
            training.fit_batch()
            saving.after_step()
        result = training.fit_head() if training.needs_head else training.finish_epoch()
        if isinstance(result, StopReason):
            return result
        reason = hooks.on_epoch(result)
        if result.epoch == 0 and (epochs := hooks.replan(result)) is not None:
            training.plan(epochs)
        saving.after_epoch()
        if reason is not None:
            return reason
    return None


class _Saving:
    """Decides when a checkpoint is due: often where saving is quick, at least once a minute."""

    def __init__(self, training: Training, hooks: FitHooks) -> None:
        self._training, self._hooks = training, hooks
        self._last_s = hooks.clock()
        self._duration_s: float | None = None  # None before the first save
        self._unsaved_steps = 0

    def after_step(self) -> None:
        """Save within an epoch once a minute."""
        self._unsaved_steps += 1
        is_last = self._training.step == self._training.problem.steps
        if not is_last and self._hooks.clock() - self._last_s >= _SAVE_INTERVAL_S:
            self._save()

    def after_epoch(self) -> None:
        """Save after the first epoch, and after later ones unless that would take too long."""
        interval_s = 0.0
        if self._duration_s is not None:
            interval_s = min(_SAVE_INTERVAL_S, _SAVE_SHARE * self._duration_s)
        if self._hooks.clock() - self._last_s >= interval_s:
            self._save()

    def stop(self) -> None:
        """Save what would be lost."""
        if self._unsaved_steps:
            self._save()

    def _save(self) -> None:
        before_s = self._hooks.clock()
        self._hooks.save(self._training.checkpoint())
        self._last_s = self._hooks.clock()
        self._duration_s = self._last_s - before_s
        self._unsaved_steps = 0
