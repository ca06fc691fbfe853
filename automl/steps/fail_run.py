"""The step `fail_run`: a run none of whose steps is tried again is closed as failed."""

from __future__ import annotations

from automl.domain.documents import JsonValue
from automl.runs import opening
from automl.runs.context import StepContext
from automl.steps.call import StepCall


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the state that the run is in now."""
    assert call.cause is not None
    return {"state": opening.fail_run(context, call.cause)}
