"""All steps of one run on this machine; those that train are child processes, each with its GPU."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from automl.data.files import OnProgress
from automl.domain.documents import JsonValue
from automl.domain.events import RunState
from automl.domain.facts import OriginKind
from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.errors import AutoMLError, SearchError
from automl.machine.process import StepResult, run_step
from automl.runs.context import StepContext
from automl.runs.opening import close_run
from automl.runs.run_lease import RunLease
from automl.steps.call import StepCall
from automl.steps.specs import PIPELINE, STEPS, Compute, StepSpec
from automl.steps.supervision import give_back
from automl.views.search import Standing, standing

_RESTARTS = 5  # how often a worker process may die before the run goes on without it
_GRACE_S = 60.0
_LOOK_EVERY_S = 1.0


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
    pipeline = _Pipeline(context, progress)
    first, *others = PIPELINE
    pipeline.run(first)
    with RunLease(context), _closed_on_failure(context):
        for step in others:
            pipeline.run(step)
    return {
        "schema": 1,
        "study": spec.name,
        "run": context.run,
        "state": RunState.SUCCEEDED.value,
        "objective": spec.search.objective.value,
        "winner": pipeline.results["choose"],
        **pipeline.document("promote"),
    }


@contextmanager
def _closed_on_failure(context: StepContext) -> Iterator[None]:
    """Close the run as failed if the block raises; one that was not opened stays so."""
    try:
        yield
    except BaseException as error:
        if context.record.study.run(context.run) is not None:
            cause = error.message if isinstance(error, AutoMLError) else "interrupted"
            close_run(context, RunState.FAILED, cause)
        raise


class _Pipeline:
    """Runs steps one after the other, and keeps what each has returned.

    Attributes:
        results: by the step's name.
    """

    def __init__(self, context: StepContext, progress: Progress) -> None:
        self._context, self._progress = context, progress
        self.results: dict[str, JsonValue] = {}

    def run(self, step: StepSpec) -> None:
        """Run a step here; one that trains in processes of its own."""
        self._progress.step(step.task or step.name)
        if step.is_mapped:
            workers = self.results["open_run"]
            assert isinstance(workers, list)
            search(self._context, workers, self._progress)
        elif step.device is not Compute.NONE:
            self.results[step.name] = _in_process(step, self._context, self._progress)
        else:
            self.results[step.name] = step.load()(self._context, self._call())

    def document(self, name: str) -> Mapping[str, JsonValue]:
        """Return the document that a step has returned."""
        document = self.results[name]
        assert isinstance(document, Mapping)
        return document

    def _call(self) -> StepCall:
        call = _call(self._context, self._progress.items)
        if "prepare" not in self.results:
            return call
        snapshot = self.document("prepare")["snapshot"]
        assert isinstance(snapshot, str)
        return replace(call, snapshot=snapshot)


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
                wait(futures, timeout=_LOOK_EVERY_S)
        except BaseException:
            over.set()
            raise
    errors = [future.exception() for future in futures]
    failed = [error for error in errors if error is not None]
    if len(failed) == len(workers):
        raise failed[0]
    for error in failed:
        progress.line(f"a worker gave up: {error}")


def final_fit(context: StepContext, progress: Progress) -> None:
    """Run the final fit in a process of its own.

    Raises:
        AutoMLError: as the step raises it.
        SearchError: its process was killed.
    """
    _in_process(STEPS["final_fit"], context, progress)


def _worker(
    context: StepContext, index: int, progress: Progress, over: threading.Event
) -> StepResult:
    # a context of its own: the log's reader is not shared between threads
    own = StepContext.open(context.settings, context.spec, context.run, context.origin)
    environment = own.settings.child_environment(os.environ)
    for _ in range(_RESTARTS):
        left_s = (own.opened_run().deadline - own.clock.now()) / timedelta(seconds=1)
        result = run_step(
            "run_worker",
            replace(_call(own), worker=index).payload(),
            env=environment,
            timeout_s=max(left_s, 0) + _GRACE_S,  # there are no slices here
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


def _in_process(step: StepSpec, context: StepContext, progress: Progress) -> JsonValue:
    """Run a step in a process of its own, and return its result."""
    name = step.name.replace("_", " ")
    result = run_step(
        step.name,
        _call(context).payload(),
        env=context.settings.child_environment(os.environ),
        timeout_s=step.limit.seconds(context.spec),
        on_line=lambda line: progress.line(f"{name}: {line}"),
        stop=lambda: False,
    )
    if result.failure is not None:
        raise result.failure.to_error()
    if result.signal is not None:
        raise SearchError(
            f"The process of {step.name} was killed by signal {result.signal}.",
            "signal 9 is usually the machine's lack of memory: free some, and run the study again",
        )
    document: JsonValue = result.result
    return document


def _call(context: StepContext, on_progress: OnProgress | None = None) -> StepCall:
    """Return the call of a step of the context's run."""
    call = StepCall(context.spec, context.run, context.origin)
    return call if on_progress is None else replace(call, on_progress=on_progress)
