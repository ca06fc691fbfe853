"""Runs that failed and go on, since a step of theirs is called again under Airflow."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from automl.domain.events import Event, RunReopened, RunState
from automl.domain.facts import Origin, OriginKind
from automl.domain.study import Run, Study
from automl.machine.signals import StopSignal
from automl.runs.context import StepContext
from automl.runs.opening import abandoned
from automl.runs.ownership import check_owner, new_owner
from automl.runs.run_lease import RunLease

log = logging.getLogger(__name__)


@contextmanager
def working_run(context: StepContext, stop: StopSignal, *, begins_search: bool) -> Iterator[None]:
    """Hold the study while a step of the run works; a run that has failed is opened again first.

    The steps of a run that succeeded find their results, and hold nothing. Neither do those of a
    run on this machine that has failed: they are refused.

    Args:
        context: the step's context, whose record has been refreshed.
        stop: becomes set when the process is asked to stop.
        begins_search: whether the step is one after which the search begins.

    Raises:
        StudyBusyError: another run holds the study.
        ConfigError: the run has failed, and the study belongs to another by now.
    """
    run = context.record.study.run(context.run)
    if run is not None and not _may_work(context, run):
        yield
        return
    with RunLease(context, stop):
        reopen(context, begins_search=begins_search)
        yield


def _may_work(context: StepContext, run: Run) -> bool:
    is_airflow = Origin.of(context.origin).kind is OriginKind.AIRFLOW
    return run.state is RunState.OPEN or (is_airflow and _has_failed(run))


def _has_failed(run: Run) -> bool:
    return run.state in {RunState.FAILED, RunState.ABANDONED}


def reopen(context: StepContext, *, begins_search: bool) -> None:
    """Open the run again if it has failed; what it has come to stays.

    The caller holds the run's lease, so that no other run of the study is alive; one that was left
    open is closed as abandoned. A search whose winner is not chosen begins anew with its whole time
    if the step is one that leads to it.

    Args:
        context: the step's context.
        begins_search: whether the search begins after the step.

    Raises:
        ConfigError: the study belongs to another by now.
    """

    def decide(study: Study) -> Sequence[Event]:
        run = study.run(context.run)
        if run is None or not _has_failed(run):
            return ()
        check_owner(context, study)
        now = context.clock.now()
        is_anew = begins_search and run.winner is None and run.continues is None
        deadline = now + context.spec.search.time_limit if is_anew else None
        log.warning(
            "run %s was closed as %s (%s) and is opened again%s",
            run.name, run.state, run.cause, "; its search begins anew" if is_anew else "",
        )  # fmt: skip
        return (
            *abandoned(study, f"{context.run} took over", now),
            *new_owner(context, study, now),
            RunReopened(at=now, run=run.name, deadline=deadline),
        )

    context.record.commit(decide)
