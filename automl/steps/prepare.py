"""The steps `check`, `prepare` and `open_run`: what must hold before a search begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from automl.data.snapshot import Snapshot, SnapshotManifest
from automl.domain.events import (
    Event,
    RunClosed,
    RunOpened,
    RunState,
    SearchEnd,
    SearchEnded,
)
from automl.domain.study import Study
from automl.errors import AutoMLError, ConfigError, DataError, Problem
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.storage.file import FileObjectStore
from automl.storage.objects import ObjectStore
from automl.storage.open import open_store
from automl.storage.probe import probe_conditional_writes
from automl.tracks.image.prepare import DatasetRequest, local_client, prepare_snapshot

Progress = Callable[[int, int, str], None]


def check(context: StepContext) -> dict[str, object]:
    """Check settings, sources and the store before anything is written for the study.

    Raises:
        ConfigError: with every source that may not be read or does not exist.
        StorageAccessError: the home cannot be used.
    """
    problems = []
    for key in ("source", "images"):
        uri = getattr(context.spec.data, key)
        if uri is None:
            continue
        try:
            context.settings.check_source(uri)
            if "://" not in uri and not Path(uri).exists():
                problems.append(Problem(f"data.{key}", f"{uri} does not exist"))
        except AutoMLError as error:
            problems.append(Problem(f"data.{key}", str(error)))
    if problems:
        raise ConfigError(
            f"The data of study {context.spec.name} cannot be read.", "see below", problems
        )
    probe_conditional_writes(context.store)
    return {"study": context.spec.name, "home": context.store.uri}


def prepare(context: StepContext, on_progress: Progress) -> SnapshotManifest:
    """Return the manifest of the study's snapshot, building it unless it exists already.

    Raises:
        DataError: the dataset cannot be used; the problems list rows and reasons.
    """
    data = context.spec.data
    source_store, source_key = _locate(data.source)
    images = (None, None) if data.images is None else _locate(data.images)
    request = DatasetRequest(
        name=context.spec.name,
        source=source_store,
        source_key=source_key,
        images=images[0],
        images_prefix=images[1],
        label=data.label,
        image_size=data.image_size,
        split=data.split.value,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        seed=context.spec.search.seed,
        max_bad_fraction=data.max_bad_fraction,
        thresholds=_first_thresholds(context),
    )
    with local_client() as client:
        return prepare_snapshot(request, context.store, client=client, on_progress=on_progress)


def _first_thresholds(context: StepContext) -> dict[str, list[float]] | None:
    """Return the split thresholds that the generation's first snapshot fixed, if there is one."""
    study = context.record.refresh()
    if not study.generation_keys or study.generation_keys[-1] != context.spec.generation_key:
        return None
    generation = len(study.generation_keys) - 1
    first = next(run for run in study.runs if run.generation == generation)
    manifest = Snapshot.open(context.store, context.spec.name, first.snapshot).manifest
    return {label: list(values) for label, values in manifest.thresholds.items()}


def _locate(uri: str) -> tuple[ObjectStore, str]:
    """Return the store that holds `uri` and its key there."""
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return open_store(f"s3://{bucket}"), key
    path = Path(uri).resolve()
    if not path.exists():
        raise DataError(f"{path} does not exist.", "correct data.source or data.images")
    return FileObjectStore(path.parent), path.name


def open_run(
    context: StepContext, snapshot: str, space: Mapping[str, int | str] | None = None
) -> list[int]:
    """Open the run, whose deadline begins to count now, and return the indices of its workers.

    A run that continues a version searches nothing: its search is over at once, and one worker is
    enough to find that out.

    The caller holds the run's lease, so that no other run of the study is alive; one that was left
    open is closed as abandoned. A second call for the same run changes nothing.

    Args:
        context: the step's context.
        snapshot: id of the prepared dataset.
        space: what the search space depends on; without it a replay needs the snapshot.

    Raises:
        SearchError: the run has been closed without success.
    """

    def decide(study: Study) -> Sequence[Event]:
        now = context.clock.now()
        if study.run(context.run) is not None:
            return ()
        events: list[Event] = [
            RunClosed(
                at=now, run=old.name, state=RunState.ABANDONED, cause=f"{context.run} took over"
            )
            for old in study.runs
            if old.state is RunState.OPEN
        ]
        events.append(
            RunOpened(
                at=now,
                run=context.run,
                deadline=now + context.spec.search.time_limit,
                snapshot=snapshot,
                spec_hash=context.spec.spec_hash,
                generation_key=context.spec.generation_key,
                spec=context.spec.model_dump(mode="json", by_alias=True),
                origin=context.origin,
                space=None if space is None else dict(space),
            )
        )
        if context.spec.final_fit.from_ is not None:
            events.append(SearchEnded(at=now, run=context.run, reason=SearchEnd.CONTINUED))
        return events

    run = context.run_in(context.record.commit(decide))
    return list(range(context.spec.search.workers if run.continues is None else 1))


def close_run(context: StepContext, state: RunState, cause: str, *, promoted: bool = False) -> None:
    """Record that the run is over; leaving the block of its `RunLease` then frees the study."""

    def decide(study: Study) -> Sequence[Event]:
        run = study.run(context.run)
        if run is None or run.state is not RunState.OPEN:
            return ()
        return (
            RunClosed(
                at=context.clock.now(),
                run=context.run,
                state=state,
                cause=cause,
                version=run.version if run.published else None,
                promoted=promoted,
            ),
        )

    context.record.commit(decide)


def fail_run(context: StepContext, cause: str) -> str:
    """Close the run as failed unless it is over or was never opened, and return its state.

    For whoever supervises the steps and knows that none will be tried again: the study is then
    free for the next run at once.

    Raises:
        StudyBusyError: another run is taking its place.
    """
    run = context.record.refresh().run(context.run)
    if run is None:
        return "never opened"
    if run.state is RunState.OPEN:
        with RunLease(context):
            close_run(context, RunState.FAILED, cause)
    closed = context.record.study.run(context.run)
    assert closed is not None
    return closed.state.value
