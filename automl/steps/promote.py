"""The step `promote`: the version becomes the champion if it is better on the gate rows."""

from __future__ import annotations

from typing import Any

from automl.domain.documents import JsonValue
from automl.domain.events import RunState
from automl.domain.layout import MODEL_FILE
from automl.publishing.registry import Registry
from automl.runs.context import StepContext
from automl.runs.opening import close_run
from automl.runs.promotion import settle
from automl.steps.call import StepCall
from automl.steps.evaluate import version_of


def promote(context: StepContext) -> dict[str, Any]:
    """Make the version the champion if it is better on the gate rows, and close the run.

    Returns:
        Version, promoted, reason, metrics and where the file lies.
    """
    run = context.opened_run()
    registry = Registry(context.store, context.spec.name)
    version = version_of(run)
    if run.state is RunState.OPEN:
        promoted, reason = settle(context, run, registry, version)
        close_run(context, RunState.SUCCEEDED, reason, promoted=promoted)
    else:
        promoted, reason = run.promoted, run.cause
    metrics = registry.manifest(version).metrics
    return {
        "version": version,
        "promoted": promoted,
        "reason": reason,
        "metrics": {name: interval.model_dump() for name, interval in metrics.items()},
        "onnx": registry.uri(version, MODEL_FILE),
    }


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return what was decided about the version."""
    return promote(context)
