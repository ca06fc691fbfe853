"""The step `promote`: the version becomes the champion if it is better on the gate rows."""

from __future__ import annotations

from typing import Any

from automl.domain.documents import JsonValue
from automl.domain.events import RunState
from automl.domain.layout import MODEL_FILE
from automl.domain.study import Run
from automl.machine.cores import available_cores
from automl.onnx.model import OnnxModel
from automl.publishing.measure import predict_rows
from automl.publishing.registry import Registry
from automl.runs.context import StepContext
from automl.runs.opening import close_run
from automl.scoring.promotion import FIRST_VERSION, Decision
from automl.steps.call import StepCall
from automl.steps.evaluate import version_of
from automl.tracks.track import Use, track_of


def promote(context: StepContext) -> dict[str, Any]:
    """Make the version the champion if it is better on the gate rows, and close the run.

    Returns:
        Version, promoted, reason, metrics and where the file lies.
    """
    run = context.opened_run()
    registry = Registry(context.store, context.spec.name)
    version = version_of(run)
    if run.state is RunState.OPEN:
        champion = registry.champion()
        if champion is not None:
            champion = registry.repair_champion()  # its run may have died before that
        if champion is not None and champion.version == version:
            promoted, reason = True, "It is the champion."
        else:
            decision = _decide(context, run, registry, version)
            promoted, reason = decision.promote, decision.reason
            if promoted:
                now = context.clock.now()
                promoted = (
                    registry.promote_once(version, context.run, reason, now).version == version
                )
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


def _decide(context: StepContext, run: Run, registry: Registry, version: int) -> Decision:
    """Compare the version with the champion on the gate rows."""
    champion = registry.champion()
    if champion is None:
        return FIRST_VERSION
    track = track_of(context.spec.task)
    dataset = track.open(context.store, context.spec.name, run.snapshot)
    compared = []
    for number in (version, champion.version):
        model = OnnxModel(registry.read(number, MODEL_FILE), available_cores())
        compared.append(predict_rows(model, dataset.raw(Use.GATE), dataset.labels))
    (challenger, truth), (defender, _) = compared
    least = context.spec.export.min_improvement
    return track.scores.compare(challenger, defender, truth, least)


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return what was decided about the version."""
    return promote(context)
