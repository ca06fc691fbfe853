"""Preparation of data as the study's log and its runs see it: what it is given, what it leaves."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from automl.data.files import SourceStore
from automl.data.request import DatasetRequest
from automl.data.snapshot import Envelope
from automl.domain.events import RunState
from automl.domain.facts import Origin, OriginKind
from automl.domain.specification import SearchSection
from automl.domain.study import Study
from automl.errors import DamagedDataError, DataError, NotFoundError, Problem
from automl.machine.cores import threads_of_trial
from automl.machine.gpus.host import find_gpus
from automl.runs.context import StepContext

MOST_PROBLEMS = 20  # that a message lists


def dataset_request(
    context: StepContext, locate: Callable[[str], tuple[SourceStore, str]]
) -> DatasetRequest:
    """Return what a study asks its track for; what its generation has fixed stays as it is.

    Args:
        context: of the run.
        locate: see `DatasetRequest`.

    Raises:
        DamagedDataError: nothing tells how the generation's rows are held out.
    """
    thresholds = thresholds_of_split(context)
    study = context.record.study
    return DatasetRequest(
        name=context.spec.name,
        data=context.spec.data,
        search=_known_search(context),
        thresholds=thresholds,
        doubted=_doubted(study),
        facts=_facts_of_generation(study, context.spec.generation_key),
        locate=locate,
    )


def _known_search(context: StepContext) -> SearchSection:
    """Return how the study searches, with the machine's resources where they are known.

    Who runs a study without Airflow prepares and trains on one machine. Elsewhere what the study
    says of its workers counts.
    """
    search = context.spec.search
    if Origin.of(context.origin).kind not in {OriginKind.CLI, OriginKind.PYTHON}:
        return search
    gpus = search.resources.gpus and min(search.resources.gpus, len(find_gpus(os.environ)))
    resources = search.resources.model_copy(update={"gpus": gpus, "cpus": threads_of_trial(search)})
    return search.model_copy(update={"resources": resources})


def _doubted(study: Study) -> str | None:
    """Return the snapshot of the last run if it failed, which its data may have caused."""
    last = study.runs[-1] if study.runs else None
    return None if last is None or last.state is not RunState.FAILED else last.snapshot


def _facts_of_generation(study: Study, key: str) -> Mapping[str, int | str]:
    generation = len(study.generation_keys) - 1
    if study.generation_keys[-1:] == (key,):
        for run in reversed(study.runs):
            if run.generation == generation and run.space is not None:
                return run.space.recorded
    return {}


def thresholds_of_split(context: StepContext) -> Mapping[str, Sequence[float]] | None:
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


def shortened(context: StepContext, error: DataError) -> DataError:
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
