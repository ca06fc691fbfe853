"""The protocol of the workers, in whatever order its single steps happen.

Four workers open, propose, claim, train, renew, release and finish trials by the code that real
workers run; training itself is left out. They are frozen between any two operations on the store,
killed, restarted, refused and robbed of replies, leases run out, and runs are superseded. After
every step the log must be whole, and nobody who holds a lease may have been fenced off.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from automl.domain.events import (
    Event,
    RungReached,
    RunState,
    SearchEnd,
    TrialClaimed,
    TrialFinished,
    TrialReleased,
)
from automl.domain.invariants import LogAudit
from automl.domain.settings import Settings
from automl.domain.study import replay
from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.errors import SearchError, StorageError
from automl.runs import opening
from automl.runs.checkpoints import counting_checkpoints
from automl.runs.context import StepContext
from automl.runs.judging import record_rung
from automl.runs.reopening import reopen
from automl.runs.training import TrialTraining
from automl.runs.trials import Claim, TrialResult, TrialSource, end_search
from automl.runs.worker import work_on
from automl.steps.study_file import study_spec
from automl.steps.supervision import give_back
from automl.storage.home import ObjectHome
from automl.storage.leases import TTL_S, KeepAlive, Lease, Leases
from automl.storage.memory import MemoryObjectStore
from tests.faults import Fault, Killed, Process, TurnStore, turn
from tests.spaces import FewCandidates

WORKERS, CANDIDATES = 4, 5
EPOCHS = 3  # of a trial, each of which is a rung
SPEC = study_spec(
    {
        "name": "tiny",
        "task": "image_classification",
        "data": {"source": "/rows.npz"},
        "search": {"seed": 3, "workers": WORKERS, "max_trials": 4},
    }
)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        return self.elapsed_s


def rung_reached(*, at: datetime, n: int, attempt: int, run: str, epochs: int) -> RungReached:
    """Return a trial's result at a rung; every epoch is one."""
    return RungReached(
        at=at, n=n, attempt=attempt, run=run, rung=epochs, epochs=epochs, planned=EPOCHS,
        loss=-0.5, score=0.5, error=0.01, log_loss=0.5,
    )  # fmt: skip


class Wish(StrEnum):
    """How a training goes on when it is its turn."""

    TRAIN = "train"
    FINISH = "finish"
    RELEASE = "release"
    FAIL = "fail"


class Worker:
    """A worker's process.

    Attributes:
        context: its step's context.
        name: its name in the log.
        wish: how its training goes on.
        holds: the claim it trains, or None.
        process: what runs it.
    """

    def __init__(self, context: StepContext, index: int, program: Callable[[Worker], None]) -> None:
        self.context, self.name = context, f"{context.run}/{index}"
        self.wish = Wish.TRAIN
        self.holds: Claim | None = None
        self.process = Process(lambda: program(self))

    @property
    def is_alive(self) -> bool:
        return not self.process.has_ended


class WorkerProtocol(RuleBasedStateMachine):
    """All that may happen to a study in one process or another."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryObjectStore(self.clock.now)
        self.truth = ObjectHome(self.store)
        self.audit, self.log = LogAudit(), list[tuple[int, Event]]()
        self.workers: list[Worker] = []  # of all runs
        self.late: set[str] = set()  # checkpoints that were written after a takeover
        self.recorded: Counter[int] = Counter()  # outcomes that a worker believes to have recorded
        self.runs = 0

    def context(self, *, in_turn: bool) -> StepContext:
        """Return a context of the newest run."""
        home = ObjectHome(TurnStore(self.store)) if in_turn else self.truth
        context = StepContext.open(Settings("/"), SPEC, f"r{self.runs}", "test", home)
        leases = Leases(home.store, "studies/tiny/leases", clock=self.clock.monotonic)
        return dataclasses.replace(context, leases=leases)

    @initialize()
    def first_run(self) -> None:
        self.open_run()
        for index in range(WORKERS):
            self.start(index)

    def open_run(self) -> None:
        self.runs += 1
        opening.open_run(self.context(in_turn=False), "snapshot")

    def start(self, index: int) -> None:
        context = self.context(in_turn=True)
        context.record.refresh()
        self.workers.append(Worker(context, index, self.work))

    # What a worker does: `run_worker` without its clock and its data.

    def work(self, worker: Worker) -> None:
        context = worker.context
        source = TrialSource(context, worker.name, lambda *_: FewCandidates(CANDIDATES))
        while True:
            claim = source.take()
            if claim is None:
                if not context.opened_run().is_searching:
                    return
                turn(lambda: None)  # it sleeps
                continue
            worker.holds = claim
            training = TrialTraining(worker.name, lambda: None)
            trial = work_on(context, Rehearsal(self, worker, claim.lease), claim, training)
            worker.holds = None
            if trial.state is TrialState.FINISHED and trial.attempt == claim.trial.attempt:
                self.recorded[trial.number] += 1

    # What happens.

    @rule(
        pick=st.integers(0, 99),
        turns=st.integers(1, 40),
        wish=st.sampled_from([Wish.FINISH, Wish.TRAIN, Wish.TRAIN, Wish.FINISH, *Wish]),
        last=st.sampled_from([Fault.NONE] * 10 + [*Fault]),
    )
    def go_on(self, pick: int, turns: int, wish: Wish, last: Fault) -> None:
        """Let a process, perhaps one of a run before, carry out some operations."""
        if self.alive:
            self.advance(self.alive[pick % len(self.alive)], turns, wish, last)

    @rule(pick=st.integers(0, 99), turns=st.integers(5, 30), later=st.integers(1, 10))
    def freeze(self, pick: int, turns: int, later: int) -> None:
        """Let a process stand still past its lease while the others go on, and then go on too."""
        if not self.alive:
            return
        frozen = self.alive[pick % len(self.alive)]
        for _ in range(3):
            self.clock.elapsed_s += 25
            for worker in self.alive:
                if worker is not frozen:
                    self.advance(worker, turns, Wish.TRAIN)
        self.advance(frozen, later, Wish.TRAIN)

    def advance(self, worker: Worker, turns: int, wish: Wish, last: Fault = Fault.NONE) -> None:
        worker.wish = wish
        for turns_left in reversed(range(turns)):
            if worker.is_alive:
                worker.process.advance(Fault.NONE if turns_left else last)

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.is_alive]

    @rule(seconds=st.sampled_from([1, 14, 29, 31, 61]))
    def time_passes(self, seconds: int) -> None:
        self.clock.elapsed_s += seconds

    @precondition(lambda self: self.missing)
    @rule(pick=st.integers(0, WORKERS - 1))
    def start_again(self, pick: int) -> None:
        """Start a worker whose process is no more, as a retry does that knows nothing of it."""
        self.start(self.missing[pick % len(self.missing)])

    @precondition(lambda self: self.missing)
    @rule(pick=st.integers(0, WORKERS - 1))
    def give_back(self, pick: int) -> None:
        """Give a dead worker's trials back and start it again, as its supervisor does."""
        index = self.missing[pick % len(self.missing)]
        give_back(self.context(in_turn=False), index)
        self.start(index)

    @property
    def missing(self) -> list[int]:
        """The workers of the newest run that no process is alive of."""
        alive = {worker.name for worker in self.alive}
        return [index for index in range(WORKERS) if f"r{self.runs}/{index}" not in alive]

    @precondition(lambda self: len(self.audit.study.trials) >= 3 * self.runs)
    @rule()
    def next_run(self) -> None:
        """Open another run; workers of the one before still live, and do not know of it."""
        self.open_run()

    @precondition(lambda self: len(self.audit.study.trials) >= 3 * self.runs)
    @rule()
    def fail(self) -> None:
        """Close the run as a later step does that fails for good, and open another."""
        opening.close_run(self.context(in_turn=False), RunState.FAILED, "a later step failed")
        self.open_run()

    @precondition(lambda self: len(self.audit.study.trials) >= 3 * self.runs)
    @rule(begins_search=st.booleans())
    def fail_and_go_on(self, *, begins_search: bool) -> None:
        """Close the run as failed and open it again, as a step does that is called once more."""
        context = self.context(in_turn=False)
        opening.close_run(context, RunState.FAILED, "a later step failed")
        reopen(context, begins_search=begins_search)

    @precondition(lambda self: len(self.audit.study.trials) >= 3 * self.runs)
    @rule()
    def deadline_passes(self) -> None:
        end_search(self.context(in_turn=False), SearchEnd.DEADLINE)

    @precondition(lambda self: self.overtaken)
    @rule(pick=st.integers(0, 99), kind=st.sampled_from([0, 1, 2, 3]))
    def write_without_a_look(self, pick: int, kind: int) -> None:
        """Append a late event of an attempt, as a writer would that checks nothing."""
        number, attempts = self.overtaken[pick % len(self.overtaken)]
        common: dict[str, Any] = {"at": self.clock.now(), "n": number}
        common["attempt"] = attempts - pick % attempts
        event: Event
        if kind == 0:
            event = TrialReleased(**common, reason="late")
        elif kind == 1:
            event = TrialClaimed(**common, run="r1", worker="late")
        elif kind == 2:
            event = rung_reached(**common, run="r1", epochs=1 + pick % EPOCHS)
        else:
            late = Measurement(score=1.0, loss=-1.0, weights="late")
            event = TrialFinished(
                **common, run="r1", outcome=Outcome.COMPLETED, measurement=late, cause="late"
            )
        self.truth.study_log("tiny").append([event], expected_version=self.audit.study.version)

    @property
    def overtaken(self) -> list[tuple[int, int]]:
        """The trials that have attempts which are over, and how many."""
        counts = ((t.number, t.attempt - (t.outcome is None)) for t in self.audit.study.trials)
        return [(number, attempts) for number, attempts in counts if attempts > 0]

    # What always holds.

    @invariant()
    def the_log_is_whole(self) -> None:
        self.read_news()
        assert self.audit.violations == []
        assert replay(self.log) == self.audit.study

    @invariant()
    def no_holder_of_a_lease_is_fenced_off(self) -> None:
        self.read_news()
        holders: Counter[int] = Counter()
        for worker in self.alive:
            claim = worker.holds
            if claim is None or not self.is_live(claim.lease):
                continue
            number = claim.trial.number
            holders[number] += 1
            assert self.audit.study.trials[number].attempt == claim.trial.attempt
        assert all(count == 1 for count in holders.values()), holders

    @invariant()
    def every_observation_is_recorded_once(self) -> None:
        self.read_news()
        assert all(count == 1 for count in self.recorded.values()), self.recorded
        for number in self.recorded:
            assert self.audit.study.trials[number].state is TrialState.FINISHED

    @invariant()
    def only_storage_and_the_end_of_its_run_end_a_worker(self) -> None:
        for worker in self.workers:
            error = worker.process.error
            self.read_news()
            run = self.audit.study.run(worker.context.run)
            was_closed = run is not None and (run.closed_at or run.reopened_at) is not None
            is_over = was_closed and isinstance(error, SearchError)
            if error is not None and not is_over and not isinstance(error, Killed | StorageError):
                raise error

    def is_live(self, lease: Lease) -> bool:
        return not lease.lost.is_set() and lease.unrenewed_s < TTL_S

    def read_news(self) -> None:
        for version, event in self.truth.study_log("tiny").read(self.audit.study.version):
            self.audit.add(version, event)
            self.log.append((version, event))

    def teardown(self) -> None:
        for worker in self.workers:
            worker.process.kill()


class Rehearsal:
    """Stands in for training: epochs with renewals and checkpoints, until the test ends them."""

    def __init__(self, machine: WorkerProtocol, worker: Worker, lease: Lease) -> None:
        self._machine, self._worker, self._lease = machine, worker, lease

    def train(self, trial: Trial, training: TrialTraining, alive: KeepAlive) -> TrialResult:
        context, machine = self._worker.context, self._machine
        found = counting_checkpoints(context, trial)
        assert not machine.late.intersection(found)
        epoch = int(PurePosixPath(found[0]).stem.removeprefix("checkpoint-")) if found else 0
        while (wish := turn(lambda: self._worker.wish)) is Wish.TRAIN:
            self._lease.renew()
            epoch += 1
            alive.check()
            if epoch <= EPOCHS:
                self._reach(trial, epoch)
                alive.check()
            self._save(trial, context.keys.trial(trial.number, trial.attempt).checkpoint(epoch))
        if wish is Wish.RELEASE:
            return TrialResult(None, Measurement(), "slice")
        if wish is Wish.FAIL:
            return TrialResult(Outcome.DIVERGED, Measurement(), "The loss is not finite.")
        score = 1 / (2 + trial.number)
        measurement = Measurement(score=score, loss=-score, epochs=epoch, weights=f"w{epoch}")
        return TrialResult(Outcome.COMPLETED, measurement, "")

    def _reach(self, trial: Trial, epoch: int) -> None:
        """Record the epoch as a rung; what the log then holds is of this attempt or an earlier."""
        context = self._worker.context
        reached = rung_reached(
            at=context.clock.now(), n=trial.number, attempt=trial.attempt, run=context.run,
            epochs=epoch,
        )  # fmt: skip
        told = record_rung(context, reached).trials[trial.number]
        if told.attempt == trial.attempt:
            assert told.rungs[-1].epochs >= epoch

    def _save(self, trial: Trial, key: str) -> None:
        machine = self._machine

        def write() -> None:
            machine.read_news()
            if machine.audit.study.trials[trial.number].attempt > trial.attempt:
                machine.late.add(key)
            machine.store.put(key, b"")

        turn(write)


def test_workers_keep_the_protocol() -> None:
    run_state_machine_as_test(
        WorkerProtocol, settings=settings(max_examples=50, stateful_step_count=50)
    )


@pytest.mark.soak
def test_workers_keep_the_protocol_in_large_numbers() -> None:
    run_state_machine_as_test(
        WorkerProtocol,
        settings=settings(max_examples=2000, stateful_step_count=80, derandomize=False),
    )
