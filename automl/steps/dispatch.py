"""Dispatch of steps: from a name and a JSON payload to a call, and back to a JSON result.

Importing this module imports no numerical library: a step that trains takes its GPU and its CPU
threads first, and imports what computes then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace

from automl.domain.documents import JsonValue
from automl.domain.settings import Settings
from automl.errors import DeviceBusyError
from automl.machine.cores import limited_pools, threads_of_final_fit, threads_of_trial
from automl.machine.gpus.host import Gpu
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext
from automl.runs.reopening import working_run
from automl.runs.run_specification import specification_of_run
from automl.runs.worker_report import WorkerReport
from automl.steps.call import StepCall, parse_call
from automl.steps.specs import Compute, step_named
from automl.storage.home import Home
from automl.storage.open import open_home

_PROGRESS_EVERY_S = 10.0
log = logging.getLogger(__name__)


def run_named_step(name: str, payload: object, home: Home | None = None) -> JsonValue:
    """Run a step with `payload` and return its result, ready for JSON.

    Args:
        name: a name of `STEPS`.
        payload: see `StepCall.payload`.
        home: where all state is kept; by default what the environment names.

    Raises:
        ConfigError: there is no such step, the payload is wrong, or the run was not checked.
        AutoMLError: as the step raises it.
    """
    step = step_named(name)
    call = parse_call(payload, step.needs, StopSignal.on_sigterm())
    settings = Settings.from_environment()
    home = open_home(settings) if home is None else home
    spec = specification_of_run(home, call.name, call.run, call.spec)
    call = replace(call, spec=spec, on_progress=LoggedProgress())
    context = StepContext.open(settings, spec, call.run, call.origin, home)
    context.record.refresh()
    with ExitStack() as held:
        if step.needs_run:
            if not step.opens_run and context.record.study.run(context.run) is None:
                context.run_in(context.record.study)  # it raises, and the study stays free
            held.enter_context(working_run(context, call.stop, begins_search=step.begins_search))
        try:
            held.enter_context(_compute(step.device, context, call))
        except DeviceBusyError as error:
            if step.device is not Compute.TRIAL:
                raise
            log.info("%s", error)  # the pool slot is given back, and no retry used up
            return WorkerReport("slice_ended").to_json()
        return step.load()(context, call)


@contextmanager
def _compute(device: Compute, context: StepContext, call: StepCall) -> Iterator[None]:
    """Hold what the step computes with.

    Raises:
        DeviceBusyError: on entry, if other processes hold the GPUs for too long.
    """
    if device is Compute.NONE:
        yield
        return
    search = context.spec.search
    is_trial = device is Compute.TRIAL
    threads = threads_of_trial(search) if is_trial else threads_of_final_fit(search)
    with limited_pools(threads), _gpu(device, context, call) as gpu:
        if gpu is not None:
            _check_device(gpu)
        yield


def _gpu(
    device: Compute, context: StepContext, call: StepCall
) -> AbstractContextManager[Gpu | None]:
    """Return the block in which the step holds its GPU."""
    from automl.runs.training_gpu import final_fit_gpu, worker_gpu

    if device is Compute.FINAL_FIT:
        return final_fit_gpu(context, call.stop)
    assert call.worker is not None
    return worker_gpu(context, call.worker, call.stop, call.slice_s)


def _check_device(gpu: Gpu) -> None:
    """Warn if torch cannot use the GPU that this process holds."""
    import torch

    if not torch.cuda.is_available():
        log.warning(
            "torch %s cannot use %s and trains on the CPU: install a build for CUDA, or set "
            "search.resources.gpus to 0",
            torch.__version__,
            gpu,
        )


class LoggedProgress:
    """Progress as log lines, one every ten seconds."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        """Log that `done` of `total` are through, unless a line was written just now."""
        now_s = time.monotonic()
        if done >= total or now_s - self._last_s >= _PROGRESS_EVERY_S:
            self._last_s = now_s
            log.info("%s: %d of %d", what, done, total)
