"""The step `prepare`: the study's sources become its snapshot."""

from __future__ import annotations

from functools import partial

from automl.data.dask import open_workers
from automl.data.files import OnProgress
from automl.data.snapshot import Envelope
from automl.doctor.data_issues import Audited
from automl.doctor.data_report import has_report, keep_report
from automl.domain.documents import JsonValue
from automl.domain.facts import Origin
from automl.domain.sources import Sources
from automl.errors import DataError
from automl.machine.cores import available_cores
from automl.machine.process import bound_to_parent
from automl.runs.admission import admit
from automl.runs.context import StepContext
from automl.runs.preparation import dataset_request, shortened
from automl.steps.call import StepCall
from automl.storage.sources import open_source
from automl.tracks.track import track_of


def prepare(context: StepContext, on_progress: OnProgress) -> Envelope:
    """Return the envelope of the study's snapshot, building it unless it exists already.

    Raises:
        ConfigError: a source may not be read.
        DataError: the dataset cannot be used; the problems list rows and reasons, or where all are.
        DataGateError: it has changed suspiciously, and the study's data gate stops that.
    """
    sources = Sources.of(context.settings, Origin.of(context.origin))
    request = dataset_request(context, partial(open_source, sources=sources))
    try:
        with open_workers(available_cores(), on_progress, bound_to_parent) as workers:
            envelope = track_of(context.spec.task).prepare(request, context.store, workers)
    except DataError as error:
        raise shortened(context, error) from error
    if not (envelope.reused and has_report(context.store, envelope)):
        audited = Audited(envelope.dataset, envelope.id, context.spec.task)
        keep_report(context.home, context.record.study, audited)
    admit(context, envelope)
    return envelope


def summary(context: StepContext, snapshot: Envelope) -> dict[str, JsonValue]:
    """Return what the step tells of a snapshot: its id, its rows per part and its classes."""
    labels = track_of(context.spec.task).open(context.store, snapshot.dataset, snapshot.id).labels
    document: dict[str, JsonValue] = {"snapshot": snapshot.id, "counts": snapshot.counts}
    return document | ({"classes": len(labels)} if labels else {})


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return what `summary` tells of the snapshot; raise StorageError once asked to stop."""
    with call.stop.interrupting():
        return summary(context, prepare(context, call.on_progress))
