"""One small night, step by step, each step in a process of its own that may be killed."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import random
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from automl.domain.settings import Settings
from automl.domain.study import Study
from automl.errors import AutoMLError
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from tests.crash.points import Crash, Operation, read_trace
from tests.digits import write_digits

STUDY, RUN = "small", "night-1"
WORKERS, TRIALS = 2, 4
SEARCH = "run_worker"
STEPS = (
    "prepare", "open_run", SEARCH, "choose", "final_fit", "export", "evaluate", "promote",
)  # fmt: skip
_ROWS, _CLASSES = 40, 2
_STEP_S = 120.0
_RETRIES = 2
_LATEST_S = 0.6  # how long after an outcome, or the kill before, a process may be killed
_OUTAGES = 0.1  # share of the kills that hit all workers
_AT_CHECKPOINT = 4  # one in so many kills follows a checkpoint
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """Where a night keeps its state.

    Attributes:
        settings: home and study log.
        environment: what the processes need to reach it.
    """

    settings: Settings
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How one process of a step ended.

    Attributes:
        signal: what killed it, None if it ended by itself.
        result: what the step returned.
        error: the error it raised, and whether that is retryable.
        operations: its storage operations.
    """

    signal: int | None
    result: object
    error: tuple[str, bool] | None
    operations: list[Operation]

    @property
    def is_well(self) -> bool:
        """Whether the step succeeded."""
        return self.signal is None and self.error is None


def small_study(
    source: Path, *, workers: int = WORKERS, trials: int = TRIALS, rows: int = _ROWS
) -> dict[str, Any]:
    """Write a few digits to `source` and return a study of them, as a document."""
    write_digits(source, rows, _CLASSES)
    return {
        "name": STUDY,
        "task": "image_classification",
        "data": {"source": str(source)},
        "search": {"time_limit": "1h", "max_trials": trials, "workers": workers},
    }


class Night:
    """Runs the steps of one run, and runs a step again that was killed or failed for a while.

    Args:
        place: where state is kept.
        study: the study's document.
        ends: how the processes of the steps before ended.
    """

    def __init__(
        self, place: Place, study: dict[str, Any], ends: Sequence[tuple[str, StepEnd]] = ()
    ) -> None:
        self._place, self._study = place, study
        self._workers = int(study["search"]["workers"])
        self.ends = list(ends)

    def run(self, step: str, crash: Crash | None = None) -> None:
        """Run one step to its good end; `crash` befalls its first process, the first if many.

        Raises:
            AssertionError: it does not end well although it was tried again.
        """
        running: dict[int, _Child] = {}
        tries = dict.fromkeys(range(self._workers if step == SEARCH else 1), 0)
        try:
            for index in tries:
                running[index] = self._start(step, index, crash if index == 0 else None)
            while running:
                assert _wait_for_any(running, _STEP_S), "a step hangs"
                for index in [index for index, child in running.items() if child.has_ended]:
                    end = running.pop(index).end()
                    self.ends.append((step, end))
                    if not end.is_well:
                        tries[index] += 1
                        self._make_up(step, index, end, tries[index])
                        running[index] = self._start(step, index, None)
        finally:
            for child in running.values():
                child.kill()

    def search_with_kills(self, kills: int, rng: random.Random) -> None:
        """Run the search; workers die and are started again until so many have died.

        When they die follows the trials that have ended, so that the search is not over before on a
        quick machine, and trials of its end are hit as often as those of its beginning. Kills that
        come too late for that follow each other more quickly. Some hit a worker that has just saved
        its training, which chance may never do: its trial is resumed.

        Args:
            kills: how many processes are killed.
            rng: draws when, and which; now and then the whole machine goes down.

        Raises:
            AssertionError: the search was over before, or does not end well.
        """
        record = StudyRecord(open_home(self._place.settings).study_log(STUDY))
        last = self._study["search"]["max_trials"] - self._workers
        due = sorted(rng.choices(range(last), k=kills))  # trials that have ended
        running = {index: self._start(SEARCH, index, None) for index in range(self._workers)}
        try:
            while running:
                behind = _outcomes(record.refresh()) - due[0] if due else 0
                if not due:
                    assert _wait_for_any(running, _STEP_S), "the search hangs"
                elif (
                    not _wait_for_any(running, rng.uniform(0, _LATEST_S) / max(1, behind))
                    and behind >= 0
                ):
                    for index in _victims(running, len(due), rng):
                        if running[index].strike():
                            del due[0]
                for index in [index for index, child in running.items() if child.has_ended]:
                    end = running.pop(index).end()
                    self.ends.append((SEARCH, end))
                    if not end.is_well:
                        self._make_up(SEARCH, index, end, tries=1)
                        running[index] = self._start(SEARCH, index, None)
        finally:
            for child in running.values():
                child.kill()
        assert not due, f"the search was over {len(due)} kills too early"

    def _make_up(self, step: str, worker: int, end: StepEnd, tries: int) -> None:
        """Do what a supervisor does before it runs a step again."""
        what = f"signal {end.signal}" if end.error is None else str(end.error)
        assert end.error is None or end.error[1], f"{step} failed for good: {what}"
        assert tries <= _RETRIES, f"{step} does not end well: {what}"
        if step == SEARCH and end.signal is not None:
            child = self._start("give_back", worker, None)
            assert _wait_for_any({worker: child}, _STEP_S), "give_back hangs"
            freed = child.end()
            assert freed.is_well, freed.error

    @property
    def _snapshot(self) -> object:
        """What `prepare` returned as the snapshot's id."""
        results = [end.result for step, end in self.ends if step == "prepare" and end.is_well]
        return results[-1]["snapshot"] if results and isinstance(results[-1], dict) else None

    def _start(self, step: str, worker: int, crash: Crash | None) -> _Child:
        payload = {
            "spec": self._study, "run": RUN, "worker": worker, "origin": "test",
            "snapshot": self._snapshot,
        }  # fmt: skip
        return _Child(self._place, step, payload, crash)


class _Child:
    """A process that runs one step."""

    def __init__(
        self, place: Place, step: str, payload: dict[str, Any], crash: Crash | None
    ) -> None:
        context = _context()
        descriptor, trace = tempfile.mkstemp(suffix=".trace")
        os.close(descriptor)
        self._trace = Path(trace)
        self._receiver, sender = context.Pipe(duplex=False)
        self._process: ForkServerProcess = context.Process(
            target=_run_step, args=(place, step, payload, crash, self._trace, sender)
        )
        self._process.start()
        sender.close()

    @property
    def sentinel(self) -> int:
        """What becomes ready when the process has ended."""
        return self._process.sentinel

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return not self._process.is_alive()

    @property
    def has_saved(self) -> bool:
        """Whether a checkpoint is stored of the training that the process is at."""
        for operation in reversed(read_trace(self._trace)):
            if operation.name == "append" and "trial_claimed" in operation.key:
                return False
            if operation.name == "put" and operation.done and "/checkpoint-" in operation.key:
                return True
        return False

    def end(self) -> StepEnd:
        """Return how the process ended, and forget it."""
        code = self._process.exitcode
        assert code is not None
        result, error = self._receiver.recv() if code >= 0 else (None, None)
        found = StepEnd(-code if code < 0 else None, result, error, read_trace(self._trace))
        self.kill()
        return found

    def strike(self) -> bool:
        """End the process as a crash would, and return whether it had not ended by itself."""
        self._process.kill()
        self._process.join()
        return self._process.exitcode == -signal.SIGKILL

    def kill(self) -> None:
        """End the process if it lives, and forget it."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
        self._receiver.close()
        self._trace.unlink(missing_ok=True)


def _outcomes(study: Study) -> int:
    return sum(trial.outcome is not None for trial in study.trials)


def _wait_for_any(children: Mapping[int, _Child], limit_s: float) -> bool:
    """Return whether any of them ends in time."""
    sentinels = [child.sentinel for child in children.values()]
    return bool(multiprocessing.connection.wait(sentinels, limit_s))


def _victims(children: Mapping[int, _Child], due: int, rng: random.Random) -> list[int]:
    """Return which of them are killed next, at most as many as are due."""
    if due % _AT_CHECKPOINT == 0:
        return _that_saves(children)
    victims = [*children] if rng.random() < _OUTAGES else [rng.choice([*children])]
    return victims[:due]


def _that_saves(children: Mapping[int, _Child]) -> list[int]:
    """Wait for one of them to save its training, and return which; nothing if one ends before."""
    while not _wait_for_any(children, _POLL_S):
        saved = [index for index, child in children.items() if child.has_saved]
        if saved:
            return saved[:1]
    return []


def _context() -> ForkServerContext:
    """Return a context whose processes start with everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.crash.child", "tests.crash.night", "pytest"])
    return context


def _run_step(
    place: Place,
    step: str,
    payload: dict[str, Any],
    crash: Crash | None,
    trace: Path,
    sender: Connection,
) -> None:
    from tests.crash.child import run_step

    os.environ.update(place.environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result: object = run_step(place.settings, step, payload, crash, trace)
        error = None
    except AutoMLError as failure:
        result, error = None, (str(failure), failure.retryable)
    sender.send((result, error))
    sender.close()
