"""The step `open_run`: what its search space depends on is measured, recorded and checked first."""

from __future__ import annotations

from automl.data.snapshot import Envelope
from automl.domain.documents import JsonValue
from automl.domain.facts import SpaceFacts
from automl.runs.context import StepContext
from automl.runs.continuation import check_continuation
from automl.runs.opening import open_run
from automl.runs.ownership import check_owner
from automl.runs.training import StudyFolder
from automl.steps.call import StepCall
from automl.tracks.track import track_of


def open_search(context: StepContext, snapshot: str) -> list[int]:
    """Open the run for a search on a snapshot and return the indices of its workers.

    A second call for the same run measures nothing: what the first one recorded counts.

    Args:
        context: the step's context; the caller holds the run's lease.
        snapshot: id of the prepared dataset.

    Raises:
        ConfigError: no candidate is within the limits, the version that is to be continued does
            not fit, or the study belongs to another; nothing is written then.
        SearchError: the run has been closed without success.
    """
    recorded = split = None
    study = context.record.refresh()
    if study.run(context.run) is None:
        check_owner(context, study)
        track, search = track_of(context.spec.task), context.spec.search
        dataset = track.open(context.store, context.spec.name, snapshot)
        split = Envelope.read(context.store, context.spec.name, snapshot).thresholds
        recorded = dataset.facts(search, StudyFolder(context))
        space = track.space(search, SpaceFacts.of(recorded), None)
        check_continuation(context, dataset, space)
    return open_run(context, snapshot, recorded, split)


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the indices of the run's workers."""
    assert call.snapshot is not None
    return open_search(context, call.snapshot)
