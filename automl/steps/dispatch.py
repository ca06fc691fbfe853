"""From a step's name and JSON payload to a call, and back to a JSON result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from automl.data.snapshot import Snapshot
from automl.domain.parsing import Purpose, parse_spec
from automl.domain.specification import StudySpec
from automl.errors import ConfigError
from automl.steps import choose, evaluate, final_fit, prepare, publish, worker
from automl.steps.context import ESTIMATOR_ORIGIN, StepContext
from automl.steps.opening import open_search
from automl.steps.run_lease import RunLease
from automl.steps.settings import Settings
from automl.steps.signals import StopSignal
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
    is_estimator = payload.get("origin") == ESTIMATOR_ORIGIN
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
    return prepare.check(context)


def _prepare(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    manifest = prepare.prepare(context, LoggedProgress())
    return {"snapshot": manifest.id, "counts": manifest.counts, "classes": len(manifest.classes)}


def _open_run(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    snapshot = payload.get("snapshot")
    if not isinstance(snapshot, str):
        raise ConfigError("The payload has no snapshot.", "pass the id that `prepare` returned")
    manifest = Snapshot.open(context.store, context.spec.name, snapshot).manifest
    return open_search(context, manifest)


def _run_worker(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    index = payload.get("worker")
    if not isinstance(index, int):
        raise ConfigError("The payload has no worker.", "pass the worker's index")
    slice_s = None
    if payload.get("origin", "").startswith("airflow"):
        slice_s = context.spec.search.slice.total_seconds()
    return worker.run_worker(context, index, stop, slice_s=slice_s).to_json()


def _give_back(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    return worker.give_back(context, int(payload["worker"]))


def _fail_run(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    return {"state": prepare.fail_run(context, str(payload["cause"]))}


def _choose(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    return choose.choose(context).to_json()


def _final_fit(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    return final_fit.final_fit(context, stop).to_json()


def _export(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    return {"version": publish.export(context)}


def _evaluate(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    return evaluate.evaluate(context)


def _promote(context: StepContext, payload: dict[str, Any], stop: StopSignal) -> object:
    return evaluate.promote(context)


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
