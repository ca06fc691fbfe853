"""The beginning and the end of a run in the study's log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from automl.domain.events import (
    Event,
    RunClosed,
    RunOpened,
    RunState,
    SearchEnd,
    SearchEnded,
)
from automl.domain.study import Study
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease


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
        if study.run(context.run) is not None:
            return ()
        now = context.clock.now()
        events: list[Event] = [*_abandoned(study, context.run, now)]
        events.append(_opened(context, snapshot, space, now))
        if context.spec.final_fit.from_ is not None:
            events.append(SearchEnded(at=now, run=context.run, reason=SearchEnd.CONTINUED))
        return events

    run = context.run_in(context.record.commit(decide))
    return list(range(context.spec.search.workers if run.continues is None else 1))


def _abandoned(study: Study, successor: str, now: datetime) -> Iterator[RunClosed]:
    """Yield the ends of runs that were left open."""
    cause = f"{successor} took over"
    for run in study.runs:
        if run.state is RunState.OPEN:
            yield RunClosed(at=now, run=run.name, state=RunState.ABANDONED, cause=cause)


def _opened(
    context: StepContext, snapshot: str, space: Mapping[str, int | str] | None, now: datetime
) -> RunOpened:
    spec = context.spec
    return RunOpened(
        at=now,
        run=context.run,
        deadline=now + spec.search.time_limit,
        snapshot=snapshot,
        spec_hash=spec.spec_hash,
        generation_key=spec.generation_key,
        spec=spec.model_dump(mode="json", by_alias=True),
        origin=context.origin,
        space=None if space is None else dict(space),
    )


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
