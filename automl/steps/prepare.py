"""The step `prepare`: the study's sources become its snapshot."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from automl.data.dask import Workers, local_client
from automl.data.files import OnProgress
from automl.data.request import DatasetRequest
from automl.data.snapshot import Envelope
from automl.domain.documents import JsonValue
from automl.domain.facts import Origin
from automl.domain.sources import Sources
from automl.errors import DamagedDataError, DataError, NotFoundError, Problem
from automl.machine.cores import available_cores
from automl.runs.context import StepContext
from automl.steps.call import StepCall
from automl.storage.sources import open_source
from automl.tracks.track import track_of

MOST_PROBLEMS = 20  # that a message lists

log = logging.getLogger(__name__)


def prepare(context: StepContext, on_progress: OnProgress) -> Envelope:
    """Return the envelope of the study's snapshot, building it unless it exists already.

    Raises:
        ConfigError: a source may not be read.
        DataError: the dataset cannot be used; the problems list rows and reasons, or where all are.
    """
    sources = Sources.of(context.settings, Origin.of(context.origin))
    request = DatasetRequest(
        name=context.spec.name,
        data=context.spec.data,
        seed=context.spec.search.seed,
        thresholds=_thresholds(context),
        locate=partial(open_source, sources=sources),
    )
    try:
        with local_client(available_cores()) as client:
            workers = Workers(client, on_progress)
            envelope = track_of(context.spec.task).prepare(request, context.store, workers)
    except DataError as error:
        raise _shortened(context, error) from error
    for finding in envelope.findings:
        log.warning("%s", finding)
    return envelope


def summary(context: StepContext, snapshot: Envelope) -> dict[str, JsonValue]:
    """Return what the step tells of a snapshot: its id, its rows per part and its classes."""
    labels = track_of(context.spec.task).open(context.store, snapshot.dataset, snapshot.id).labels
    document: dict[str, JsonValue] = {"snapshot": snapshot.id, "counts": snapshot.counts}
    return document | ({"classes": len(labels)} if labels else {})


def _thresholds(context: StepContext) -> Mapping[str, Sequence[float]] | None:
    """Return the thresholds of the present generation's split; None before its first run.

    Logs from before they were recorded leave them to the generation's snapshots, of which any will
    do.

    Raises:
        DamagedDataError: neither tells them.
    """
    study = context.record.refresh()
    if study.generation_keys[-1:] != (context.spec.generation_key,):
        return None
    if study.split is not None:
        return study.split
    generation = len(study.generation_keys) - 1
    names = dict.fromkeys(run.snapshot for run in study.runs if run.generation == generation)
    for name in names:
        with suppress(NotFoundError):
            return Envelope.read(context.store, context.spec.name, name).thresholds
    raise DamagedDataError(
        f"The snapshots {', '.join(names)} are gone, which alone told how rows are held out.",
        "restore one of their manifest.json; or change data.test_fraction a little, which begins a "
        "new generation",
    )


def _shortened(context: StepContext, error: DataError) -> DataError:
    """Return an error with few problems; all of them are stored where they are more."""
    more = len(error.problems) - MOST_PROBLEMS
    if more <= 0:
        return error
    key = context.keys.run(context.run).problems
    text = io.StringIO(newline="")
    csv.writer(text).writerows(
        [("path", "problem"), *((p.path, p.message) for p in error.problems)]
    )
    context.store.put(key, text.getvalue().encode(errors="backslashreplace"))
    rest = Problem("", f"and {more:,} more: all are in {context.store.uri.rstrip('/')}/{key}")
    return DataError(error.message, error.hint, [*error.problems[:MOST_PROBLEMS], rest])


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Return the snapshot's id, its rows per part and the number of its classes, if it has any."""
    return summary(context, prepare(context, call.on_progress))
