"""The step `prepare`: the study's sources become its snapshot."""

from __future__ import annotations

from functools import partial

from automl.data.dask import Workers, local_client
from automl.data.files import OnProgress
from automl.data.request import DatasetRequest
from automl.data.snapshot import Envelope
from automl.domain.documents import JsonValue
from automl.domain.facts import Origin
from automl.domain.sources import Sources
from automl.machine.cores import available_cores
from automl.runs.context import StepContext
from automl.steps.call import StepCall
from automl.storage.sources import open_source
from automl.tracks.track import track_of


def prepare(context: StepContext, on_progress: OnProgress) -> Envelope:
    """Return the envelope of the study's snapshot, building it unless it exists already.

    Raises:
        ConfigError: a source may not be read.
        DataError: the dataset cannot be used; the problems list rows and reasons.
    """
    sources = Sources.of(context.settings, Origin.of(context.origin))
    request = DatasetRequest(
        name=context.spec.name,
        data=context.spec.data,
        seed=context.spec.search.seed,
        first=_first_snapshot(context),
        locate=partial(open_source, sources=sources),
    )
    with local_client(available_cores()) as client:
        workers = Workers(client, on_progress)
        return track_of(context.spec.task).prepare(request, context.store, workers)


def summary(context: StepContext, snapshot: Envelope) -> dict[str, JsonValue]:
    """Return what the step tells of a snapshot: its id, its rows per part and its classes."""
    labels = track_of(context.spec.task).open(context.store, snapshot.dataset, snapshot.id).labels
    document: dict[str, JsonValue] = {"snapshot": snapshot.id, "counts": snapshot.counts}
    return document | ({"classes": len(labels)} if labels else {})


def _first_snapshot(context: StepContext) -> Envelope | None:
    """Return the generation's first snapshot, whose split counts on, if there is one."""
    study = context.record.refresh()
    if not study.generation_keys or study.generation_keys[-1] != context.spec.generation_key:
        return None
    generation = len(study.generation_keys) - 1
    first = next(run for run in study.runs if run.generation == generation)
    return Envelope.read(context.store, context.spec.name, first.snapshot)


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the snapshot's id, its rows per part and the number of its classes, if it has any."""
    return summary(context, prepare(context, call.on_progress))
