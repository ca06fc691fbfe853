"""A run that is opened again may die in the middle, and has its time again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from automl.domain.events import RunState
from automl.domain.invariants import violations
from automl.domain.settings import Settings
from automl.errors import AutoMLError, StudyBusyError
from automl.machine.signals import StopSignal
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.reopening import working_run
from automl.runs.run_lease import RUN_TTL_S
from automl.steps.choose import choose
from automl.steps.final_fit import _end as fit_must_end
from automl.storage.home import ObjectHome
from automl.storage.memory import MemoryObjectStore
from automl.storage.objects import ObjectStore
from tests.faults import Fault, Killed, Process, TurnStore
from tests.homes import use_home
from tests.opened_runs import (
    ABANDONED,
    FAILED,
    FORM,
    OWN,
    call,
    call_again,
    closed,
    opened,
    reopenings,
    run_in,
    searched,
    spec_with,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


def failed_in_memory() -> tuple[MemoryObjectStore, StepContext]:
    """Return a home with a run that failed after its search, while another was left open."""
    store = MemoryObjectStore()
    context = StepContext.open(Settings("/"), spec_with(), "one", OWN, ObjectHome(store))
    opening.open_run(context, "snapshot")
    searched(context)
    opening.close_run(context, FAILED, "the store was away")
    other = StepContext.open(Settings("/"), spec_with(), "other", OWN, ObjectHome(store))
    opening.open_run(other, "snapshot")
    return store, context


def choose_on(store: ObjectStore) -> Callable[[], object]:
    """Return a call of `choose`; the dispatch of steps belongs to a process's main thread."""

    def step() -> object:
        context = StepContext.open(Settings("/"), spec_with(), "one", OWN, ObjectHome(store))
        context.record.refresh()
        with working_run(context, StopSignal(), begins_search=False):
            return choose(context).to_json()

    return step


@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER, Fault.LOSE_REPLY])
def test_a_step_that_dies_while_it_opens_the_run_again_completes_when_it_is_called_again(
    fault: Fault,
) -> None:
    for k in range(1, 200):
        store, context = failed_in_memory()
        process = Process(choose_on(TurnStore(store)))
        for _ in range(k - 1):
            if not process.has_ended:
                process.advance()
        if process.has_ended:
            break
        process.advance(fault)
        while not process.has_ended:
            process.advance()
        assert process.error is None or isinstance(process.error, Killed | AutoMLError)

        assert choose_on(store)() == {"trial": 0, "score": 0.9, "error": 0.1}

        one, other = context.record.refresh().runs
        assert (one.state, one.winner, other.state) == (RunState.OPEN, 0, ABANDONED), k
        assert len(reopenings(context)) == 1
        assert violations(context.record.log.read()) == []
    assert 5 < k < 199


def test_a_reopened_run_whose_process_dies_frees_the_study_and_may_go_on_again(
    home: Path,
) -> None:
    context = closed(searched(opened(home, "one", origin=FORM)), FAILED)
    call_again("choose", FORM)
    # as if a process of it had renewed its lease last, and died
    context.home.leases("digits", RUN_TTL_S).acquire("run", "one")
    with pytest.raises(StudyBusyError, match="is open and works"):
        call("open_run", "other", origin=FORM, snapshot="snapshot")
    lease = home / "studies" / "digits" / "leases" / "run.json"
    past_s = time.time() - RUN_TTL_S - 1
    os.utime(lease, (past_s, past_s))
    opened(home, "other", origin=FORM)

    one = run_in(context, "one")
    assert (one.state, one.winner) == (ABANDONED, 0)
    call_again("final_fit", FORM)
    assert run_in(context, "one").state is RunState.OPEN


def test_the_final_fit_of_a_reopened_run_has_its_whole_time(home: Path) -> None:
    context = searched(opened(home, "one", origin=OWN), is_chosen=True)
    run = run_in(context, "one")
    assert run.chosen_at is not None
    limit = context.spec.final_fit.time_limit
    assert fit_must_end(context, run) == run.chosen_at + limit

    closed(context, FAILED)
    call_again("final_fit")

    again = run_in(context, "one")
    assert again.reopened_at is not None
    assert again.reopened_at > run.chosen_at
    assert fit_must_end(context, again) == again.reopened_at + limit
