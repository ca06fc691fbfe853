"""From a step's name and JSON payload to a call, and back to a JSON result.

Importing this module imports no numerical library: a step that trains takes its GPU and its CPU
threads first, and imports what computes then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from automl.domain.facts import Origin, OriginKind
from automl.domain.parsing import Purpose, parse_spec
from automl.domain.specification import StudySpec
from automl.errors import ConfigError, DeviceBusyError
from automl.machine.cores import limited_pools, threads_of_final_fit, threads_of_trial
from automl.machine.gpus.host import Gpu
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.runs.settings import Settings
from automl.runs.training_gpu import final_fit_gpu, worker_gpu
from automl.runs.worker_report import WorkerReport
from automl.steps.study_file import load_study_file
from automl.storage.home import Home

_PROGRESS_EVERY_S = 10.0
log = logging.getLogger(__name__)


def run_named_step(step: str, payload: dict[str, Any], home: Home | None = None) -> object:
    """Run `step` with `payload` and return its result, ready for JSON.

    Args:
        step: a name of `STEPS`.
        payload: `spec` or `study_file`, `run`, `origin`, `worker` for `run_worker` and
            `give_back`, `cause` for `fail_run`, and for `open_run` the `snapshot` that `prepare`
            returned.
        home: where all state is kept; by default what the environment names.

    Raises:
        ConfigError: there is no such step, or the payload is incomplete.
        AutoMLError: as the step raises it.
    """
    if step not in STEPS:
        raise ConfigError(f"There is no step {step!r}.", f"use one of {', '.join(STEPS)}")
    stop = StopSignal.on_sigterm()
    settings = Settings.from_environment()
    origin = payload.get("origin", "")
    context = StepContext.open(settings, _spec(payload), payload["run"], origin, home)
    context.record.refresh()
    if step in _OUTSIDE_THE_RUN or context.is_run_over:
        return STEPS[step](context, payload, stop)
    with RunLease(context):
        return STEPS[step](context, payload, stop)


def _spec(payload: dict[str, Any]) -> StudySpec:
    if payload.get("study_file"):
        return load_study_file(Path(payload["study_file"]))
    is_estimator = Origin.of(payload.get("origin", "")).kind is OriginKind.PYTHON
    purpose = Purpose.ESTIMATOR if is_estimator else Purpose.PUBLISH
    return parse_spec(payload.get("spec"), purpose=purpose)


_OUTSIDE_THE_RUN = frozenset({"check", "prepare", "give_back", "fail_run"})  # they need no open run


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


def _check(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    from automl.steps import check

    return check.check(context)


def _prepare(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    from automl.steps import prepare

    return prepare.summary(context, prepare.prepare(context, LoggedProgress()))


def _open_run(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    snapshot = payload.get("snapshot")
    if not isinstance(snapshot, str):
        raise ConfigError("The payload has no snapshot.", "pass the id that `prepare` returned")
    from automl.steps.open_run import open_search

    return open_search(context, snapshot)


def _run_worker(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    index = payload.get("worker")
    if not isinstance(index, int):
        raise ConfigError("The payload has no worker.", "pass the worker's index")
    search, slice_s = context.spec.search, None
    if Origin.of(payload.get("origin", "")).kind is OriginKind.AIRFLOW:
        slice_s = search.slice.total_seconds()
    with ExitStack() as held:
        held.enter_context(limited_pools(threads_of_trial(search)))
        try:
            gpu = held.enter_context(worker_gpu(context, index, stop, slice_s))
        except DeviceBusyError as error:  # the pool slot is given back, and no retry used up
            log.info("%s", error)
            return WorkerReport("slice_ended").to_json()
        from automl.runs import worker

        _check_device(gpu)
        return worker.run_worker(context, index, stop, slice_s=slice_s).to_json()


def _check_device(gpu: Gpu | None) -> None:
    """Warn if torch cannot use the GPU that this process holds."""
    import torch

    if gpu is not None and not torch.cuda.is_available():
        log.warning(
            "torch %s cannot use %s and trains on the CPU: install a build for CUDA, or set "
            "search.resources.gpus to 0",
            torch.__version__,
            gpu,
        )


def _give_back(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    from automl.runs import worker

    return worker.give_back(context, int(payload["worker"]))


def _fail_run(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    from automl.runs import opening

    return {"state": opening.fail_run(context, str(payload["cause"]))}


def _choose(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    from automl.steps import choose

    return choose.choose(context).to_json()


def _final_fit(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    threads = threads_of_final_fit(context.spec.search)
    with limited_pools(threads), final_fit_gpu(context, stop) as gpu:
        from automl.steps import final_fit

        _check_device(gpu)
        return final_fit.final_fit(context, stop).to_json()


def _export(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    from automl.steps import export

    return {"version": export.export(context)}


def _evaluate(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    from automl.steps import evaluate

    return evaluate.evaluate(context)


def _promote(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    from automl.steps import promote

    return promote.promote(context)


STEPS: dict[str, Callable[[StepContext, dict[str, Any], StopSignal], object]] = {
    "check": _check,
    "prepare": _prepare,
    "open_run": _open_run,
    "run_worker": _run_worker,
    "give_back": _give_back,
    "fail_run": _fail_run,
    "choose": _choose,
    "final_fit": _final_fit,
    "export": _export,
    "evaluate": _evaluate,
    "promote": _promote,
}
