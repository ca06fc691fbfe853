"""The step `run_worker`: trials are trained until the search or the worker's slice ends."""

from __future__ import annotations

from automl.domain.documents import JsonValue
from automl.runs.context import StepContext
from automl.runs.worker import run_worker
from automl.steps.call import StepCall


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the report of what the worker did."""
    assert call.worker is not None
    return run_worker(context, call.worker, call.stop, slice_s=call.slice_s).to_json()
