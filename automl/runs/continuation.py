"""Continuing a published version: its weights, and what must hold before a run goes on from them.

A row that the version was trained on may neither be a calibration row nor a test row of the run, or
both would flatter it. Rows keep their parts within a generation; across generations only if the
settings and thresholds that decide about them are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from automl.data.snapshot import Envelope
from automl.domain.objective import Objective
from automl.domain.study import Run, Study
from automl.domain.trial import Trial
from automl.errors import (
    ConfigError,
    DamagedDataError,
    NewerSchemaError,
    NotFoundError,
    Problem,
    SearchError,
    VerificationError,
)
from automl.publishing.manifest import Manifest
from automl.publishing.registry import Registry
from automl.publishing.verify import require_verified
from automl.runs.context import StepContext
from automl.runs.trial_files import Weights, load_tensors_of
from automl.search.space import SearchSpace
from automl.tracks.image.snapshot import ImageEnvelope
from automl.training.module import Normalization

_UNREADABLE = (NotFoundError, DamagedDataError, NewerSchemaError)


@dataclass(frozen=True, slots=True)
class FittedNetwork:
    """A trial's architecture with weights.

    Attributes:
        trial: number of the trial.
        weights: their key.
        normalization: what the weights were trained with.
    """

    trial: int
    weights: str
    normalization: Normalization


def fitted_network(context: StepContext, run: Run) -> FittedNetwork:
    """Return what the final fit of a run stored.

    Raises:
        SearchError: the run has had none.
        NotFoundError: its log does not name the normalisation, and its snapshot is gone.
    """
    fit = run.final_fit
    if fit is None:
        raise SearchError(f"Run {run.name} has no final fit yet.", "run the step final_fit first")
    member = fit.members[0]
    mean, std = (_numbers(member.details.get(name)) for name in ("mean", "std"))
    if mean and std:
        return FittedNetwork(member.trial, member.model, Normalization(mean, std))
    envelope = ImageEnvelope.read(context.store, context.spec.name, run.snapshot)
    normalization = Normalization(envelope.mean, envelope.std)
    return FittedNetwork(member.trial, member.model, normalization)


def _numbers(value: JsonValue) -> tuple[float, ...]:
    """Return the numbers of a list; none of anything else."""
    numbers = value if isinstance(value, list) else []
    return tuple(float(number) for number in numbers if isinstance(number, int | float))


def published_network(context: StepContext, version: int) -> tuple[FittedNetwork, Weights]:
    """Return what a version was exported from, by the log as far as it is read.

    Raises:
        SearchError: the version or its weights are gone.
        DamagedDataError, NewerSchemaError: the weights cannot be read.
    """
    origin = context.record.study.fitted(version)
    if origin is None:
        raise _gone(context, version, "its run is not in the study's log")
    try:
        network = fitted_network(context, origin)
        return network, load_tensors_of(context, network.weights)
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


def check_continuation(context: StepContext, manifest: ImageEnvelope, space: SearchSpace) -> None:
    """Check that the version which the specification continues, if any, fits the snapshot.

    Args:
        context: the step's context, its record up to date.
        manifest: the snapshot's.
        space: the run's search space; only its limits count.

    Raises:
        ConfigError: with everything that stands against it.
    """
    version = context.spec.final_fit.from_
    if version is None:
        return
    found = [*_problems(context, version, manifest, space)]
    if found:
        raise ConfigError(
            f"Version {version} of study {context.spec.name} cannot be continued.",
            f"`automl models {context.spec.name}` lists what there is; without final_fit.from the "
            "run searches",
            [Problem("final_fit.from", text) for text in found],
        )


def _problems(
    context: StepContext, version: int, manifest: ImageEnvelope, space: SearchSpace
) -> Iterator[str]:
    registry, study = Registry(context.store, context.spec.name), context.record.study
    if not registry.exists(version):
        known = ", ".join(map(str, registry.versions())) or "none"
        yield f"there is no version {version}; published versions: {known}"
        return
    try:
        published = registry.manifest(version)
        require_verified(registry, version)
        published_network(context, version)
    except VerificationError as error:
        damaged = "; ".join(str(problem) for problem in error.problems)
        yield f"version {version} is damaged: {damaged}"
        return
    except (SearchError, *_UNREADABLE) as error:
        yield error.message
        return
    misfits = [*_misfits(context, published, manifest)]
    yield from misfits
    origin = study.fitted(version)
    assert origin is not None
    yield from _moved_rows(context, origin, published, manifest)
    candidate = continued_trial(study, version).candidate
    limits = context.spec.search.limits.model_dump(exclude_none=True)
    if limits and not misfits and candidate is not None and not space.contains(candidate):
        yield f"its network is beyond search.limits ({', '.join(limits)})"


def _misfits(context: StepContext, published: Manifest, manifest: ImageEnvelope) -> Iterator[str]:
    """Yield in what the version differs from what the run would train."""
    if published.task != context.spec.task:
        yield f"its task is {published.task}, the study's is {context.spec.task}"
    if published.labels != manifest.classes:
        old, new = set(published.labels), set(manifest.classes)
        lost, added = (", ".join(sorted(few)) or "none" for few in (old - new, new - old))
        yield f"its classes are not the dataset's: missing now {lost}; new {added}"
    if published.input.size != manifest.image_size:
        size = published.input.size
        yield (
            f"its images are {size} px wide, the dataset's {manifest.image_size} px; "
            f"data.image_size: {size} makes them equal"
        )


def _moved_rows(
    context: StepContext, origin: Run, published: Manifest, manifest: ImageEnvelope
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
    if before.thresholds != manifest.thresholds:
        yield (
            f"rows that it was trained on may be held out now: the study's generation changed "
            f"after run {origin.name}, and with it the thresholds of the split"
        )


def _gone(context: StepContext, version: int, why: str) -> SearchError:
    return SearchError(
        f"The weights of version {version} of study {context.spec.name} are gone: {why}",
        "set final_fit.from to a version that has them, or leave it out",
    )
