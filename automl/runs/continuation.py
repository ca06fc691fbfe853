"""Continuing a published version: its models, and what must hold before a run goes on from them.

A row that the version was trained on may neither be a calibration row nor a test row of the run, or
both would flatter it. Rows keep their parts within a generation; across generations only if the
settings and thresholds that decide about them are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from automl.data.snapshot import Envelope
from automl.domain.events import FinalFitFinished
from automl.domain.objective import Objective
from automl.domain.study import Run, Study
from automl.domain.trial import Trial
from automl.errors import (
    ConfigError,
    DamagedDataError,
    ExportError,
    NewerSchemaError,
    NotFoundError,
    Problem,
    SearchError,
    TrainingError,
    VerificationError,
)
from automl.publishing.manifest import Manifest
from automl.publishing.registry import Registry
from automl.publishing.verify import require_verified
from automl.runs.context import StepContext
from automl.search.space import SearchSpace
from automl.tracks.track import Dataset, FileFacts, Member, track_of

_UNREADABLE = (NotFoundError, DamagedDataError, NewerSchemaError)


def final_fit_of(run: Run) -> FinalFitFinished:
    """Return what the log tells of a run's final fit; raise SearchError if it has had none."""
    if run.final_fit is None:
        raise SearchError(f"Run {run.name} has no final fit yet.", "run the step final_fit first")
    return run.final_fit


def fitted_members(context: StepContext, run: Run) -> list[Member]:
    """Return the candidates that a run's final fit stored, with their models.

    Raises:
        SearchError: the run has had none.
        NotFoundError: a model is gone, or its log does not tell all and its snapshot is gone.
    """
    fit = final_fit_of(run)
    details = _details(context, run) if any(not one.details for one in fit.members) else {}
    return [
        _member(context, one.trial, one.model, one.details or details, one.weight)
        for one in fit.members
    ]


def trial_member(context: StepContext, run: Run, trial: Trial) -> Member:
    """Return a trial of a run's snapshot with the model of its own training.

    Raises:
        NotFoundError: the model is gone.
    """
    key = trial.measurement.weights
    assert key is not None
    return _member(context, trial.number, key, _details(context, run), 1.0)


def _member(
    context: StepContext, number: int, key: str, details: Mapping[str, Any], weight: float
) -> Member:
    candidate = context.record.study.trials[number].candidate
    assert candidate is not None
    return Member(candidate, context.store.get(key).data, details, weight, key)


def _details(context: StepContext, run: Run) -> Mapping[str, Any]:
    """Return what models are kept with that were fitted on a run's snapshot."""
    track = track_of(context.spec.task)
    return track.open(context.store, context.spec.name, run.snapshot).details


def published_members(context: StepContext, version: int) -> list[Member]:
    """Return what a version was exported from, by the log as far as it is read.

    Raises:
        SearchError: the version or a model of it is gone.
        DamagedDataError, NewerSchemaError: what its log does not tell cannot be read.
    """
    origin = context.record.study.fitted(version)
    if origin is None:
        raise _gone(context, version, "its run is not in the study's log")
    try:
        return fitted_members(context, origin)
    except NotFoundError as error:
        raise _gone(context, version, error.message) from error


def continued_trial(study: Study, version: int) -> Trial:
    """Return the trial whose architecture a version has, whatever it was measured on.

    Raises:
        SearchError: the log does not tell of the version.
    """
    origin = study.fitted(version)
    if origin is None or origin.final_fit is None:
        raise SearchError(
            f"No run of the study's log has made version {version}.",
            "set final_fit.from to another version, or leave it out",
        )
    return study.trials[origin.final_fit.members[0].trial]


def check_continuation(context: StepContext, dataset: Dataset, space: SearchSpace) -> None:
    """Check that the version which the specification continues, if any, fits the snapshot.

    Args:
        context: the step's context, its record up to date.
        dataset: the snapshot.
        space: the run's search space; only its limits count.

    Raises:
        ConfigError: with everything that stands against it.
    """
    version = context.spec.final_fit.from_
    if version is None:
        return
    found = [*_problems(context, version, dataset, space)]
    if found:
        raise ConfigError(
            f"Version {version} of study {context.spec.name} cannot be continued.",
            f"`automl models {context.spec.name}` lists what there is; without final_fit.from the "
            "run searches",
            [Problem("final_fit.from", text) for text in found],
        )


def _problems(
    context: StepContext, version: int, dataset: Dataset, space: SearchSpace
) -> Iterator[str]:
    registry, study = Registry(context.store, context.spec.name), context.record.study
    if not registry.exists(version):
        known = ", ".join(map(str, registry.versions())) or "none"
        yield f"there is no version {version}; published versions: {known}"
        return
    try:
        published = registry.manifest(version)
        if published.task != context.spec.task:
            yield f"its task is {published.task}, the study's is {context.spec.task}"
            return
        require_verified(registry, version)
        members = published_members(context, version)
    except VerificationError as error:
        damaged = "; ".join(str(problem) for problem in error.problems)
        yield f"version {version} is damaged: {damaged}"
        return
    except (SearchError, *_UNREADABLE) as error:
        yield error.message
        return
    misfits = [*dataset.misfits(_file_facts(published))]
    yield from misfits
    origin = study.fitted(version)
    assert origin is not None
    yield from _moved_rows(context, origin, published, dataset.envelope)
    if not misfits:
        yield from _unusable(context, members, dataset, space)


def _file_facts(published: Manifest) -> FileFacts:
    return FileFacts(
        labels=published.labels,
        columns=tuple((column.name, column.dtype) for column in published.columns),
        input=published.input,
        parameters=published.parameters,
    )


def _unusable(
    context: StepContext, members: Sequence[Member], dataset: Dataset, space: SearchSpace
) -> Iterator[str]:
    """Yield why a version that fits the snapshot cannot be fitted on it."""
    limits = context.spec.search.limits.model_dump(exclude_none=True)
    if limits and not all(space.contains(member.candidate) for member in members):
        yield f"its network is beyond search.limits ({', '.join(limits)})"
        return
    try:
        dataset.reference(members, 1)
    except (DamagedDataError, NewerSchemaError, ExportError, TrainingError) as error:
        yield error.message


def _moved_rows(
    context: StepContext, origin: Run, published: Manifest, envelope: Envelope
) -> Iterator[str]:
    """Yield why rows that the version was trained on might be held out now."""
    keys, spec = context.record.study.generation_keys, context.spec
    is_newest = origin.generation == len(keys) - 1
    if is_newest and keys[-1] == spec.generation_key:
        return
    then = spec.search.model_copy(update={"objective": Objective(published.objective)})
    if spec.model_copy(update={"search": then}).generation_key != keys[origin.generation]:
        yield (
            f"rows that it was trained on may be held out now: since run {origin.name} the "
            "settings that decide about rows have changed (label, split, fractions or seed)"
        )
        return
    try:
        before = Envelope.read(context.store, spec.name, origin.snapshot)
    except _UNREADABLE as error:
        yield f"which rows it was trained on is not known any more: {error.message}"
        return
    if before.thresholds != envelope.thresholds:
        yield (
            f"rows that it was trained on may be held out now: the study's generation changed "
            f"after run {origin.name}, and with it the thresholds of the split"
        )


def _gone(context: StepContext, version: int, why: str) -> SearchError:
    return SearchError(
        f"The weights of version {version} of study {context.spec.name} are gone: {why}",
        "set final_fit.from to a version that has them, or leave it out",
    )
