"""One open run per study: who may go on, who is refused, and with what words."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from automl.domain.events import (
    FinalFitFinished,
    FitSource,
    FittedMember,
    RunClosed,
    RunState,
    SearchEnd,
    SearchEnded,
    TrialFinished,
    VersionPublished,
    VersionReserved,
    WinnerChosen,
)
from automl.domain.trial import Measurement, Outcome
from automl.errors import SearchError, StudyBusyError
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RUN_TTL_S, RunLease
from automl.runs.trials import TrialSource
from automl.steps.dispatch import run_named_step
from automl.tracks.image.space import NetworkMorphismSpace
from tests import operators
from tests.commands import automl
from tests.homes import use_home
from tests.opened_runs import (
    DOCUMENT,
    LATER_STEPS,
    append,
    call,
    context_of,
    opened,
    run_in,
    spec_with,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


def automl_run(folder: Path, **search: Any) -> subprocess.CompletedProcess[str]:
    """Run the study of a few noisy images in a process."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(folder / "rows.npz", allow_pickle=False, x=pixels, y=np.arange(60) % 2)
    sections = {"data": {"source": str(folder / "rows.npz")}, "search": {"workers": 1, **search}}
    (folder / "study.yaml").write_text(yaml.safe_dump(DOCUMENT | sections))
    return automl("run", str(folder / "study.yaml"), "--json", settings=os.environ)


# --- a second run while one lives ---


@pytest.fixture
def living(home: Path) -> Iterator[StepContext]:
    """A run that a process works on."""
    context = context_of(home, "first")
    with RunLease(context):
        opening.open_run(context, "snapshot")
        yield context


def test_a_second_run_is_refused_while_one_lives_and_told_when_to_come(
    living: StepContext, home: Path, tmp_path: Path
) -> None:
    done = automl_run(tmp_path, time_limit="10m")

    assert done.returncode == 4
    error = json.loads(done.stdout)["error"]
    deadline = f"{living.opened_run().deadline:%Y-%m-%d %H:%M:%S} UTC"
    assert error["type"] == "StudyBusyError"
    assert error["message"] == (
        f"Run first of study digits is open and works: its search ends at {deadline}, and then it "
        "publishes."
    )
    assert "if its processes died, the study is free at 20" in error["hint"]
    assert StudyBusyError.retryable
    assert not (home / "datasets").exists()  # it is refused before it prepares
    assert [run.name for run in living.record.refresh().runs] == ["first"]


def test_a_run_that_prepares_is_told_of_too(home: Path) -> None:
    with (
        RunLease(context_of(home, "first")),
        pytest.raises(
            StudyBusyError, match=r"Run first .* is open and works: it is being prepared"
        ),
        RunLease(context_of(home, "second")),
    ):
        pass


def test_a_run_that_publishes_is_told_of_too(living: StepContext, home: Path) -> None:
    append(living, SearchEnded(at=living.clock.now(), run="first", reason=SearchEnd.MAX_TRIALS))

    with (
        pytest.raises(StudyBusyError, match="its search is over and it is about to publish"),
        RunLease(context_of(home, "second")),
    ):
        pass


def test_no_other_run_is_opened_while_one_lives(living: StepContext) -> None:
    with pytest.raises(StudyBusyError, match="Run first of study digits is open"):
        call("open_run", "second", snapshot="snapshot")


@pytest.mark.parametrize("step", LATER_STEPS)
def test_no_step_goes_on_without_its_run(living: StepContext, step: str) -> None:
    with pytest.raises(SearchError, match="Run second of study digits was never opened"):
        call(step, "second")


def test_the_study_is_free_when_the_processes_have_been_dead_for_the_lease(home: Path) -> None:
    context_of(home, "first").home.leases("digits", RUN_TTL_S).acquire("run", "first")
    with pytest.raises(StudyBusyError), RunLease(context_of(home, "second")):
        pass
    lease = home / "studies" / "digits" / "leases" / "run.json"
    past_s = time.time() - RUN_TTL_S - 1
    os.utime(lease, (past_s, past_s))  # as if nobody had renewed it since

    with RunLease(context_of(home, "second")):
        pass


# --- taking over ---


def test_a_run_whose_processes_died_is_closed_as_abandoned(home: Path) -> None:
    first = opened(home, "first")
    second = opened(home, "second")

    old, new = second.record.refresh().runs
    assert (old.state, old.cause) == (RunState.ABANDONED, "second took over")
    assert (new.name, new.state) == ("second", RunState.OPEN)
    assert first.record.refresh().open_run == new


@pytest.mark.parametrize("is_successor_over", [False, True])
@pytest.mark.parametrize("step", LATER_STEPS)
def test_no_step_of_a_superseded_run_goes_on(
    home: Path, step: str, *, is_successor_over: bool
) -> None:
    opened(home, "first")
    second = opened(home, "second")
    if is_successor_over:
        opening.close_run(second, RunState.SUCCEEDED, "")
    before = second.record.refresh().version

    with pytest.raises(SearchError, match=r"Run first .* closed as abandoned: second took over"):
        call(step, "first")
    assert second.record.refresh().version == before
    with RunLease(context_of(home, "third")):  # the refused step does not hold the study
        pass


def test_a_worker_that_was_superseded_while_it_searched_stops(home: Path) -> None:
    first = opened(home, "first")
    source = TrialSource(first, "first/0", lambda *_: NetworkMorphismSpace(8, 10))
    assert source.take() is not None
    opened(home, "second")

    assert source.take() is None
    with pytest.raises(SearchError, match="abandoned"):
        first.opened_run()


@pytest.mark.parametrize("step", LATER_STEPS)
def test_a_step_of_a_run_that_was_never_opened_is_refused(home: Path, step: str) -> None:
    with pytest.raises(SearchError, match=r"Run one of study digits was never opened\. Hint: run"):
        call(step, "one")
    with RunLease(context_of(home, "two")):  # the refused step does not hold the study
        pass


# --- steps called again ---


def succeeded(home: Path) -> StepContext:
    """Return a run that has published version 4, as its log tells it."""
    context = opened(home, "one")
    claim = TrialSource(context, "one/0", lambda *_: NetworkMorphismSpace(8, 10)).take()
    assert claim is not None
    now = context.clock.now()
    measured = Measurement(score=0.9, error=0.1, loss=-0.9, weights="key")
    append(
        context,
        TrialFinished(
            at=now, n=0, attempt=1, run="one", outcome=Outcome.COMPLETED, measurement=measured
        ),
        SearchEnded(at=now, run="one", reason=SearchEnd.MAX_TRIALS),
        WinnerChosen(at=now, run="one", trial=0, loss=-0.9),
        FinalFitFinished(
            at=now,
            run="one",
            members=(FittedMember(trial=0, model="w"),),
            source=FitSource.RETRAINED,
            epochs=7,
            note="n",
        ),
        VersionReserved(at=now, run="one", version=4),
        VersionPublished(at=now, run="one", version=4),
        RunClosed(at=now, run="one", state=RunState.SUCCEEDED, version=4, promoted=True),
    )
    return context


def test_the_steps_of_a_run_that_succeeded_find_their_results_while_another_is_open(
    home: Path,
) -> None:
    context = succeeded(home)
    assert context.opened_run().state is RunState.SUCCEEDED
    second = context_of(home, "second")
    with RunLease(second):
        opening.open_run(second, "snapshot")
        before = second.record.refresh().version

        assert call("choose", "one") == {"trial": 0, "score": 0.9, "error": 0.1}
        assert call("final_fit", "one") == {
            "trial": 0, "source": "retrained", "epochs": 7, "note": "n",
        }  # fmt: skip
        assert call("fail_run", "one", cause="late") == {"state": "succeeded"}
        assert second.record.refresh().version == before
        assert second.record.study.open_run == run_in(second, "second")


@pytest.mark.parametrize("step", ["reopen", *LATER_STEPS])
def test_the_steps_of_a_run_that_failed_are_refused_with_the_cause(home: Path, step: str) -> None:
    context = opened(home, "one")
    opening.fail_run(context, "the parity check said no")

    with pytest.raises(SearchError, match="closed as failed: the parity check said no") as caught:
        opening.open_run(context, "snapshot") if step == "reopen" else call(step, "one")
    assert "start a new run" in caught.value.hint
    assert not caught.value.retryable


def test_opening_a_run_twice_changes_nothing(home: Path) -> None:
    context = opened(home, "one")
    before = context.record.refresh()

    assert opening.open_run(context, "another snapshot") == [0]
    assert context.record.refresh() == before


# --- failing for good ---


def test_failing_a_run_closes_it_once_and_frees_the_study(home: Path) -> None:
    context = opened(home, "one")

    assert call("fail_run", "one", cause="export: disk on fire") == {"state": "failed"}
    assert call("fail_run", "one", cause="later") == {"state": "failed"}

    run = run_in(context, "one")
    assert (run.state, run.cause) == (RunState.FAILED, "export: disk on fire")
    assert call("fail_run", "two", cause="it did not open") == {"state": "never opened"}
    with RunLease(context_of(home, "two")):
        pass


def test_a_local_run_that_fails_frees_the_study_at_once(home: Path, tmp_path: Path) -> None:
    codes = [automl_run(tmp_path, time_limit="5s").returncode for _ in range(2)]  # too short

    assert codes == [3, 3]  # not 4: neither finds the study busy
    runs = context_of(home, "look").record.refresh().runs
    assert [run.state for run in runs] == [RunState.FAILED] * 2
    assert all(run.cause == "No trial of study digits has completed." for run in runs)


def test_the_operator_closes_a_run_whose_step_fails_for_good(home: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException
    from automl_airflow.operator import StepOperator, run_name

    given, checked = operators.context(), operators.CHECKED | {"study": "digits"}
    name = run_name(given["dag_run"].dag_id, given["dag_run"].run_id)
    context = opened(home, name)

    with pytest.raises(AirflowFailException, match="has no final fit yet"):
        StepOperator(task_id="export", step="export", checked=checked).execute(given)

    run = run_in(context, name)
    assert run.state is RunState.FAILED
    assert run.cause.startswith(f"export: Run {name} has no final fit yet.")
    with RunLease(context_of(home, "next")):
        pass


# --- generations ---


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"label": "species"}},
        {"data": {"split": "random"}},
        {"data": {"validation_fraction": 0.3}},
        {"data": {"test_fraction": 0.1}},
        {"search": {"seed": 1}},
    ],
)
def test_what_makes_scores_incomparable_starts_a_generation(
    home: Path, sections: dict[str, dict[str, Any]]
) -> None:
    first = succeeded(home)
    second = opened(home, "second", spec_with(**sections))

    study = second.record.refresh()
    old, new = study.runs
    assert (old.generation, new.generation) == (0, 1)
    assert study.trials == first.record.refresh().trials  # they keep their record
    assert study.comparable(old) == study.trials
    assert study.comparable(new) == ()
    with pytest.raises(SearchError, match="No trial of study digits has completed"):
        run_named_step(
            "choose", {"spec": second.spec.model_dump(mode="json", by_alias=True), "run": "second"}
        )


@pytest.mark.parametrize(
    "change",
    [{"task": "tabular_classification"}, {"objective": "log_loss"}],
    ids=["task", "objective"],
)
def test_task_and_objective_belong_to_the_generation(change: dict[str, Any]) -> None:
    spec = spec_with()
    search = spec.search.model_copy(update={k: v for k, v in change.items() if k == "objective"})
    task = change.get("task", spec.task)
    changed = spec.model_copy(update={"search": search, "task": task})

    assert changed.generation_key != spec.generation_key


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"source": "/elsewhere/rows.npz", "images": "/elsewhere"}},
        {"data": {"max_bad_fraction": 0.5, "image_size": 32}},
        {"search": {"time_limit": "1h", "max_trials": 9, "workers": 4, "slice": "1m"}},
        {"final_fit": {"retrain": False, "time_limit": "2h"}},
        {"export": {"min_improvement": 0.01}},
    ],
)
def test_all_other_changes_continue_the_study(
    home: Path, sections: dict[str, dict[str, Any]]
) -> None:
    succeeded(home)
    second = opened(home, "second", spec_with(**sections))

    study = second.record.refresh()
    assert [run.generation for run in study.runs] == [0, 0]
    assert study.comparable(run_in(second, "second")) == study.trials


def test_a_changed_snapshot_makes_earlier_trials_incomparable(home: Path) -> None:
    succeeded(home)
    second = context_of(home, "second")
    with RunLease(second):
        opening.open_run(second, "another snapshot")

    study = second.record.refresh()
    assert [run.generation for run in study.runs] == [0, 0]
    assert study.comparable(run_in(second, "second")) == ()
    assert study.comparable(run_in(second, "one")) == study.trials


def test_the_deadline_counts_from_the_opening(home: Path) -> None:
    run = opened(home, "one").opened_run()

    assert run.deadline - run.opened_at == timedelta(minutes=10)
