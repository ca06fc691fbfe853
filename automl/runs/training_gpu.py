"""The GPU that a training step of a run gets: what it needs, and for how long it waits.

Importing this module does not import torch: the steps enter its blocks before they do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

from automl.machine.gpus.host import Gpu
from automl.machine.gpus.lease import Patience, visible_gpu
from automl.machine.gpus.ledger import Claim
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext

_PROPOSALS_SEEN = 50  # of the newest trials: their work tells that of the next
_SLICE_WAIT_S = 300.0  # under Airflow; less than the operator adds to the slice as the time limit
TOO_LATE_S = 6.0  # before the deadline: a worker starts no trial any more


def worker_gpu(
    context: StepContext, worker: int, stop: StopSignal, slice_s: float | None
) -> AbstractContextManager[Gpu | None]:
    """Return the block in which a worker holds its GPU.

    It waits for one while its run's search needs it, but under Airflow no longer than five minutes
    or a slice; then it is to give its pool slot back.

    Args:
        context: the step's context.
        worker: index of the worker within the run.
        stop: becomes set when the process is asked to stop.
        slice_s: how long the pool slot may be kept; None for the whole search.
    """
    limit_s = None if slice_s is None else time.monotonic() + min(slice_s, _SLICE_WAIT_S)

    def patience() -> Patience:
        if stop.is_set() or (limit_s is not None and time.monotonic() >= limit_s):
            return Patience.GIVE_UP
        run = context.opened_run()
        left_s = (run.deadline - context.clock.now()) / timedelta(seconds=1)
        begun = [t for t in context.record.study.comparable_unfinished(run) if t.attempt > 0]
        if left_s < TOO_LATE_S or not (run.is_searching or (run.is_undecided and begun)):
            return Patience.GO_WITHOUT
        return Patience.WAIT

    return visible_gpu(_claim(context, f"worker {worker}"), patience)


def final_fit_gpu(context: StepContext, stop: StopSignal) -> AbstractContextManager[Gpu | None]:
    """Return the block in which the final fit holds its GPU.

    It waits for one until its time is up; then the incumbent's weights are published.
    """

    def patience() -> Patience:
        if stop.is_set():
            return Patience.GIVE_UP
        run = context.opened_run()
        if run.final_fit is not None or run.chosen_at is None:
            return Patience.GO_WITHOUT
        is_over = context.clock.now() >= run.chosen_at + context.spec.final_fit.time_limit
        return Patience.GO_WITHOUT if is_over else Patience.WAIT

    return visible_gpu(_claim(context, "final fit"), patience)


def _claim(context: StepContext, step: str) -> Callable[[int], Claim] | None:
    """Return what is wanted of a GPU; None if the study wants none."""
    if context.spec.search.resources.gpus == 0:
        return None
    purpose = f"{step} of run {context.run} of study {context.spec.name}"

    def claim(most: int) -> Claim:
        need_bytes = _need_bytes(context) if most > 1 else None
        return Claim(need_bytes, 1 if need_bytes is None else most, purpose)

    return claim


def _need_bytes(context: StepContext) -> int | None:
    """Return the memory that a process of the run takes at most on a GPU that it shares.

    None stands for the whole GPU: nothing bounds the trials, or they are too large to gain by
    sharing.
    """
    from automl.tracks.track import track_of

    run = context.opened_run()
    track = track_of(context.spec.task)
    limit = run.limits.device_memory
    if limit is None or run.space is None or track.memory is None:
        return None
    newest = context.record.study.trials[-_PROPOSALS_SEEN:]
    candidates = [trial.candidate for trial in newest if trial.candidate is not None]
    envelope = track.open(context.store, context.spec.name, run.snapshot).envelope
    return track.memory.shared_bytes(candidates, run.space, limit, envelope)
