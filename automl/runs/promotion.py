"""The end of a run: whether its version becomes the champion."""

from __future__ import annotations

from automl.domain.layout import MODEL_FILE
from automl.domain.study import Run
from automl.machine.cores import available_cores
from automl.onnx.model import OnnxModel
from automl.publishing.measure import predict_rows
from automl.publishing.registry import Registry
from automl.runs.context import StepContext
from automl.scoring.promotion import FIRST_VERSION, Decision
from automl.tracks.track import Use, track_of

_CHAMPION = "It is the champion."
_REPLACED = "It has been the champion, and another version has taken its place since."


def settle(context: StepContext, run: Run, registry: Registry, version: int) -> tuple[bool, str]:
    """Make a run's version the champion if it is to be; return whether it is now, and why (not).

    A champion that another run puts there meanwhile is decided about anew.
    """
    decision = Decision(promote=False, reason=_REPLACED, p_value=None, gain=None)

    def judge(champion: int | None) -> str | None:
        nonlocal decision
        decision = _decide(context, run, registry, version, champion)
        return decision.reason if decision.promote else None

    now = context.clock.now()
    promoted = registry.promote_once(version, context.run, judge, now).version == version
    if promoted == decision.promote:
        return promoted, decision.reason
    return promoted, _CHAMPION if promoted else _REPLACED


def _decide(
    context: StepContext, run: Run, registry: Registry, version: int, champion: int | None
) -> Decision:
    """Compare a run's version with a champion on the gate rows, if that is not a later run's.

    Runs are ordered by the log. How a version became the champion does not matter, and a champion
    whose run the log does not have is only compared.
    """
    if champion is None:
        return FIRST_VERSION
    defending = registry.manifest(champion).run
    if context.record.refresh().is_later(defending, run):
        reason = f"Version {champion}, the champion, is of {defending}, which was opened later."
        return Decision(promote=False, reason=reason, p_value=None, gain=None)
    track = track_of(context.spec.task)
    dataset = track.open(context.store, context.spec.name, run.snapshot)
    compared = []
    for number in (version, champion):
        model = OnnxModel(registry.read(number, MODEL_FILE), available_cores())
        compared.append(predict_rows(model, dataset.raw(Use.GATE), dataset.labels))
    (challenger, truth), (defender, _) = compared
    least = context.spec.export.min_improvement
    return track.scores.compare(challenger, defender, truth, least)
