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
from automl.errors import StudyBusyError
from automl.runs.context import StepContext, StoreClock
from automl.runs.ownership import check_owner, new_owner
from automl.runs.run_lease import RunLease, take_silent_study
from automl.storage.home import Home
from automl.storage.study_log import StudyRecord


def open_run(
    context: StepContext,
    snapshot: str,
    space: Mapping[str, int | str] | None = None,
    split: Mapping[str, Sequence[float]] | None = None,
) -> list[int]:
    """Open the run, whose deadline begins to count now, and return the indices of its workers.

    A run that continues a version searches nothing: its search is over at once, and one worker is
    enough to find that out. A DAG that opens a study which nobody owns becomes its owner.

    The caller holds the run's lease, so that no other run of the study is alive; one that was left
    open is closed as abandoned. A second call for the same run changes nothing.

    Args:
        context: the step's context.
        snapshot: id of the prepared dataset.
        space: what the search space depends on; without it a replay needs the snapshot.
        split: thresholds of the snapshot's split, which the first run of a generation records.

    Raises:
        ConfigError: the study belongs to another.
        SearchError: the run has been closed without success.
    """

    def decide(study: Study) -> Sequence[Event]:
        if study.run(context.run) is not None:
            return ()
        now = context.clock.now()
        events: list[Event] = [*abandoned(study, f"{context.run} took over", now)]
        check_owner(context, study)
        begins = study.generation_keys[-1:] != (context.spec.generation_key,)
        events.append(_opened(context, snapshot, space, split if begins else None, now))
        events += new_owner(context, study, now)
        if context.spec.final_fit.from_ is not None:
            events.append(SearchEnded(at=now, run=context.run, reason=SearchEnd.CONTINUED))
        return events

    run = context.run_in(context.record.commit(decide))
    return list(range(context.spec.search.workers if run.continues is None else 1))


def abandoned(study: Study, cause: str, now: datetime) -> Iterator[RunClosed]:
    """Yield the ends of runs that were left open, with why they are closed."""
    for run in study.runs:
        if run.state is RunState.OPEN:
            yield RunClosed(at=now, run=run.name, state=RunState.ABANDONED, cause=cause)


def _opened(
    context: StepContext,
    snapshot: str,
    space: Mapping[str, int | str] | None,
    split: Mapping[str, Sequence[float]] | None,
    now: datetime,
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
        split=None if split is None else {label: tuple(ends) for label, ends in split.items()},
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


def abandon_run(home: Home, study: str, who: str) -> str | None:
    """Close a study's open run as abandoned and free the study; return the run's name.

    For a run whose next step waits and will never come, such as one of a DAG run that was removed.

    Args:
        home: where the study is.
        study: its name.
        who: the person.

    Returns:
        None if no run was open.

    Raises:
        StudyBusyError: a process of a run has given a sign of life in the last two minutes.
    """
    record = StudyRecord(home.study_log(study))
    if record.refresh().open_run is None:
        return None
    lease = take_silent_study(home, study, f"{who}, abandoning")
    if lease is None:
        raise StudyBusyError(
            f"A process of the open run of study {study} works, or worked just now.",
            "stop it, such as by marking its DAG run as failed, and try again in two minutes",
        )
    closed: list[RunClosed] = []

    def decide(study: Study) -> Sequence[Event]:
        closed[:] = abandoned(study, f"{who} abandoned it", StoreClock(home.store).now())
        return closed

    record.commit(decide)
    lease.release()
    return closed[0].run if closed else None
