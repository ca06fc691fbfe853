"""All steps of one run on this machine; those that train are child processes, each with its GPU."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from automl.domain.events import RunState
from automl.domain.facts import OriginKind
from automl.domain.specification import StudySpec
from automl.errors import AutoMLError, SearchError
from automl.machine.process import StepResult, run_step
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.runs.settings import Settings
from automl.runs.worker import give_back
from automl.steps import check, choose, evaluate, export, prepare, promote
from automl.steps.open_run import open_search
from automl.views.search import Standing, standing

_RESTARTS = 5  # how often a worker process may die before the run goes on without it
_GRACE_S = 60.0
_FINAL_FIT_GRACE_S = 600.0  # to load the dataset before it, and to compare and store after it


class Progress(Protocol):
    """Shows how a run gets on."""

    def step(self, name: str) -> None:
        """A step begins."""

    def items(self, done: int, total: int, what: str) -> None:
        """Of `total` items, `done` are through."""

    def line(self, text: str) -> None:
        """A process of the run says something."""

    def search(self, look: Callable[[], Standing | None]) -> None:
        """The search goes on; `look` reads where it stands."""


def new_run_name() -> str:
    """Return a run id that no other run has."""
    return f"local-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def run_study(settings: Settings, spec: StudySpec, progress: Progress) -> dict[str, Any]:
    """Run the whole pipeline for `spec` and return the document of `automl run --json`.

    Raises:
        AutoMLError: as the failing step raises it; the run is then closed as failed.
    """
    context = StepContext.open(settings, spec, new_run_name(), OriginKind.CLI)
    progress.step("check")
    check.check(context)
    with RunLease(context):
        progress.step("prepare")
        snapshot = prepare.prepare(context, progress.items)
        workers = open_search(context, snapshot.id)
        try:
            winner, promotion = _run_open(context, workers, progress)
        except AutoMLError as error:
            opening.close_run(context, RunState.FAILED, error.message)
            raise
        except BaseException:
            opening.close_run(context, RunState.FAILED, "interrupted")
            raise
    return {
        "schema": 1,
        "study": spec.name,
        "run": context.run,
        "state": RunState.SUCCEEDED.value,
        "objective": spec.search.objective.value,
        "winner": winner.to_json(),
        **promotion,
    }


def _run_open(
    context: StepContext, workers: list[int], progress: Progress
) -> tuple[choose.Winner, dict[str, Any]]:
    """Go through the steps of the open run; return its winner and what `promote` says."""
    progress.step("search")
    search(context, workers, progress)
    progress.step("choose")
    winner = choose.choose(context)
    progress.step("final_fit")
    final_fit(context, progress)
    progress.step("export")
    export.export(context)
    progress.step("evaluate")
    evaluate.evaluate(context)
    progress.step("promote")
    return winner, promote.promote(context)


def search(context: StepContext, workers: list[int], progress: Progress) -> None:
    """Run the workers until the search ends; a worker whose process dies is started again."""
    over = threading.Event()

    def look() -> Standing | None:
        return standing(context.record.refresh(), context.run, context.clock.now())

    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            futures = [pool.submit(_worker, context, index, progress, over) for index in workers]
            while not all(future.done() for future in futures):
                progress.search(look)
                over.wait(1.0)
        except BaseException:
            over.set()
            raise
    errors = [future.exception() for future in futures]
    failed = [error for error in errors if error is not None]
    if len(failed) == len(workers):
        raise failed[0]
    for error in failed:
        progress.line(f"a worker gave up: {error}")


def _worker(
    context: StepContext, index: int, progress: Progress, over: threading.Event
) -> StepResult:
    # a context of its own: the log's reader is not shared between threads
    own = StepContext.open(context.settings, context.spec, context.run, context.origin)
    payload = {**_payload(own), "worker": index}
    environment = own.settings.child_environment(os.environ)
    for _ in range(_RESTARTS):
        left_s = (own.opened_run().deadline - own.clock.now()) / timedelta(seconds=1)
        result = run_step(
            "run_worker",
            payload,
            env=environment,
            timeout_s=max(left_s, 0) + _GRACE_S,
            on_line=lambda line: progress.line(f"worker {index}: {line}"),
            stop=over.is_set,
        )
        if result.has_died and not over.is_set():  # else the run ends anyway, and so do its leases
            freed = give_back(own, index)
            how = "broke off" if result.signal is None else f"was killed by signal {result.signal}"
            progress.line(f"worker {index} {how}; trials {freed} go on")
        if result.failure is not None:
            raise result.failure.to_error()
        if result.signal is None:
            return result
    raise SearchError(f"Worker {index} died {_RESTARTS} times.", "see the log lines above")


def final_fit(context: StepContext, progress: Progress) -> None:
    """Run the final fit in a process of its own.

    Raises:
        AutoMLError: as the step raises it.
        SearchError: its process was killed.
    """
    result = run_step(
        "final_fit",
        _payload(context),
        env=context.settings.child_environment(os.environ),
        timeout_s=context.spec.final_fit.time_limit.total_seconds() + _FINAL_FIT_GRACE_S,
        on_line=lambda line: progress.line(f"final fit: {line}"),
        stop=lambda: False,
    )
    if result.failure is not None:
        raise result.failure.to_error()
    if result.signal is not None:
        raise SearchError(
            f"The process of final_fit was killed by signal {result.signal}.",
            "signal 9 is usually the machine's lack of memory: free some, and run the study again",
        )


def _payload(context: StepContext) -> dict[str, Any]:
    return {
        "spec": context.spec.model_dump(mode="json", by_alias=True),
        "run": context.run,
        "origin": context.origin,
    }
