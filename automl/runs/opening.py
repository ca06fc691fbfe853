"""The beginning and the end of a run in the study's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
