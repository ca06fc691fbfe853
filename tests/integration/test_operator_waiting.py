"""Waiting of the operator: what gives the slot back, for how long, and when it is given up."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.operators import CHECKED, api_server, context

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

STEPS = (
    "prepare",
    "open_run",
    "run_worker",
    "choose",
    "final_fit",
    "export",
    "evaluate",
    "promote",
)
KEY = "automl_waiting"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A function that returns the steps that were called."""
    file = tmp_path / "calls"
    file.touch()
    monkeypatch.setenv("AUTOML_CALLS", str(file))
    return lambda: file.read_text().split()


def waits_s(task: Any, given: Any) -> float:
    """Execute a task that is to wait, and return for how long."""
    from airflow.sdk.exceptions import AirflowRescheduleException

    with pytest.raises(AirflowRescheduleException) as caught:
        task.execute(given)
    wait_s: float = (caught.value.reschedule_date - datetime.now(UTC)).total_seconds()
    return wait_s


def fails(task: Any, given: Any) -> str:
    """Execute a task that is to fail for good, and return why."""
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException) as caught:
        task.execute(given)
    return str(caught.value)


def state(given: Any) -> Any:
    return given["task_state_store"].get(KEY)


def remember(given: Any, **more: Any) -> None:
    """Let a task have waited before."""
    known = {"instance": "one", "count": 1, "trouble_s": 5.0, "deaths": 0, "busy_until": ""}
    given["task_state_store"].set(KEY, known | more)


@pytest.mark.parametrize("ahead_s", [-300, 0, 300])
def test_the_next_turn_is_named_by_the_clock_of_the_server(
    operator: Any, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    with api_server(ahead_s=ahead_s) as url:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", url)
        wait_s = waits_s(operator("run_worker", "slice", worker=0), context())

    assert wait_s - ahead_s == pytest.approx(5.5, abs=1.5)


# --- trouble ---


@pytest.mark.parametrize("step", STEPS)
def test_an_outage_is_waited_out_at_every_step(operator: Any, step: str) -> None:
    given = context()

    assert 4.5 < waits_s(operator(step, "away", worker=0), given) <= 6.25
    assert (state(given)["count"], state(given)["deaths"]) == (1, 0)


@pytest.mark.parametrize(("step", "plan"), [("open_run", "away"), ("run_worker", "slice")])
def test_no_wait_is_shorter_than_the_loop_of_the_scheduler(
    operator: Any, step: str, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME", "10")

    assert 14.5 < waits_s(operator(step, plan, worker=0), context()) <= 15


def test_the_delay_grows_to_five_minutes_and_differs_between_tasks() -> None:
    from automl_airflow.waiting import LONGEST_S, SHORTEST_S, delay_s

    delays = [delay_s(count, "one") for count in range(40)]
    others = [delay_s(count, "two") for count in range(40)]

    assert min(delays) >= SHORTEST_S
    assert max(delays) <= LONGEST_S
    assert all(after > 1.5 * before for before, after in itertools.pairwise(delays[:6]))
    assert min(delays[6:]) >= 240
    assert all(one != two for one, two in zip(delays, others, strict=True))
    assert 10 < sum(each < 3600 for each in [sum(delays[:n]) for n in range(40)]) < 25


def test_an_outage_of_thirty_minutes_passes_and_one_of_an_hour_is_given_up(
    operator: Any, calls: Callable[[], list[str]]
) -> None:
    given, task = context(), operator("final_fit", "away")
    waited_s, tries = 0.0, 0
    while waited_s < 1800:
        waited_s += waits_s(task, given)
        tries += 1
    remember(given, count=20, trouble_s=3599.0)  # the child of this try takes no second

    assert tries < 16
    assert waits_s(task, given) >= 240
    assert "fail_run" not in calls()
    message = fails(task, given)
    assert message.startswith("It is wrong. Hint: do better\n  - a.b: one")
    assert "Given up after 6" in message
    assert calls()[-1] == "fail_run"


def test_waiting_in_a_queue_is_no_trouble(operator: Any) -> None:
    given, task = context(), operator("final_fit", "away")
    remember(given, count=3, trouble_s=100.0)

    wait_s = waits_s(task, given)

    assert 100 + wait_s <= state(given)["trouble_s"] < 100 + wait_s + 5


@pytest.mark.parametrize("step", STEPS)
def test_a_cleared_task_has_patience_again(operator: Any, step: str) -> None:
    given = context()
    remember(given, instance="before it was cleared", count=20, trouble_s=9e9, deaths=9)

    assert waits_s(operator(step, "away", worker=0), given) <= 6.25
    assert state(given)["instance"] == "one"


def test_the_end_of_a_slice_gives_the_pool_slot_back_and_ends_all_trouble(operator: Any) -> None:
    given = context()
    remember(given, trouble_s=3000.0)

    assert 3 < waits_s(operator("run_worker", "slice", worker=1), given) <= 5
    assert given["trial_label"] == "waits for a slot · trials 0, 3"
    assert state(given) is None


def test_the_label_says_that_a_worker_waits(operator: Any) -> None:
    given = context()

    waits_s(operator("run_worker", "away", worker=1), given)
    assert given["trial_label"] == "waits · worker 1"
    fails(operator("run_worker", "refused", worker=1), given)
    assert given["trial_label"] == "worker 1"


def test_an_error_that_stays_is_given_up_at_once(
    operator: Any, calls: Callable[[], list[str]]
) -> None:
    assert fails(operator("export", "refused"), context()).startswith("It is wrong.")
    assert calls() == ["export", "fail_run"]


@pytest.mark.parametrize(
    ("step", "closes"), [("prepare", False), ("open_run", True), ("choose", True)]
)
def test_a_run_is_closed_if_nothing_can_end_it_later(
    operator: Any, calls: Callable[[], list[str]], step: str, *, closes: bool
) -> None:
    fails(operator(step, "refused"), context())

    assert calls() == [step, *["fail_run"] * closes]


@pytest.mark.parametrize("why", ["refused", "away", "die"])
def test_a_step_is_called_again_while_its_run_cannot_be_closed(
    operator: Any, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    given = context()
    monkeypatch.setenv("AUTOML_TEST_FAIL_RUN", why)

    assert 4.5 < waits_s(operator("choose", "refused"), given) <= 6.25
    assert operator("choose", "echo").execute(given)["argv"][1] == "choose"
    assert calls() == ["choose", "fail_run", "choose"]

    remember(given, count=20, trouble_s=3600.0)
    assert fails(operator("choose", "refused"), given).startswith("It is wrong.")


def test_trouble_of_airflow_itself_is_waited_out(
    operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    def away(environment: object) -> None:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    task = operator("export")
    monkeypatch.setattr("automl_airflow.operator.child_environment", away)

    assert waits_s(task, context()) <= 6.25


# --- deaths ---


@pytest.mark.parametrize(("plan", "why"), [("die", "killed by signal 9"), ("crash", "exit code 1")])
def test_a_process_that_dies_three_times_is_given_up(
    operator: Any, calls: Callable[[], list[str]], plan: str, why: str
) -> None:
    given, task = context(), operator("final_fit", plan)

    first_s, second_s = waits_s(task, given), waits_s(task, given)
    message = fails(task, given)

    assert first_s <= 6.25 < second_s
    assert why in message
    assert "it died 3 times" in message
    assert calls() == ["final_fit"] * 3 + ["fail_run"]


@pytest.mark.parametrize("plan", ["die", "crash"])
def test_a_dead_workers_trial_is_given_back_and_the_worker_goes_on(
    operator: Any, calls: Callable[[], list[str]], plan: str
) -> None:
    given, task = context(), operator("run_worker", plan, worker=0)
    for _ in range(5):  # the log counts the deaths of a trial
        assert waits_s(task, given) <= 5

    assert calls() == ["run_worker", "give_back"] * 5
    assert state(given) is None


@pytest.mark.parametrize("freed", ["nothing freed", "away", "die"])
def test_a_worker_that_dies_without_a_trial_is_in_trouble(
    operator: Any, monkeypatch: pytest.MonkeyPatch, freed: str
) -> None:
    monkeypatch.setenv("AUTOML_TEST_GIVE_BACK", freed)
    given, task = context(), operator("run_worker", "crash", worker=0)

    assert waits_s(task, given) < waits_s(task, given)
    remember(given, trouble_s=3600.0)
    assert "exit code 1 and no result" in fails(task, given)


@pytest.mark.parametrize("step", ["run_worker", "final_fit"])
@pytest.mark.parametrize("plan", ["sleep", "deaf"])
def test_a_stop_from_outside_is_neither_trouble_nor_a_death(
    operator: Any, calls: Callable[[], list[str]], step: str, plan: str
) -> None:
    given, task = context(), operator(step, plan, worker=0)
    threading.Timer(1.0, task.on_kill).start()

    started_s = time.monotonic()
    wait_s = waits_s(task, given)

    assert time.monotonic() - started_s < 8
    assert wait_s <= 5
    assert state(given) is None
    assert calls() == [step]


def test_a_result_that_comes_with_the_stop_counts(operator: Any) -> None:
    task = operator("export", "checkpoint")
    threading.Timer(1.5, task.on_kill).start()

    assert task.execute(context()) == "checkpointed"


# --- a busy study ---


def run_of(kind: str, dag: str = "automl_leaves") -> Any:
    return SimpleNamespace(
        dag_id=dag, run_id="r", conf={}, run_type=kind, triggering_user_name=None
    )


@pytest.mark.parametrize("step", ["open_run", "final_fit"])
def test_a_scheduled_run_waits_for_a_busy_study_until_its_next_time(
    operator: Any, step: str
) -> None:
    given = context() | {"dag_run": run_of("scheduled")}
    task = operator(step, "busy", checked=CHECKED | {"timezone": "Asia/Kathmandu"})

    now = datetime.now(UTC)
    assert waits_s(task, given) <= 6.25
    until = datetime.fromisoformat(state(given)["busy_until"])
    assert now < until <= now + timedelta(days=1)
    assert (until.hour, until.minute) == (19, 15)  # 01:00 there
    waits_s(task, given)
    assert datetime.fromisoformat(state(given)["busy_until"]) == until


@pytest.mark.parametrize(
    ("kind", "dag"),
    [
        ("manual", "automl_leaves"), ("asset_triggered", "automl_leaves"), ("scheduled", "pipeline")
    ],
)  # fmt: skip
def test_another_run_waits_for_a_busy_study_as_long_as_it_may_search(
    operator: Any, calls: Callable[[], list[str]], kind: str, dag: str
) -> None:
    given = context() | {"dag_run": run_of(kind, dag)}
    task = operator("open_run", "busy", checked=CHECKED | {"time_limit": 7200.0})

    waits_s(task, given)
    until = datetime.fromisoformat(state(given)["busy_until"])
    assert 7190 < (until - datetime.now(UTC)).total_seconds() <= 7200
    remember(given, busy_until=datetime.now(UTC).isoformat(), trouble_s=9e9)
    assert "Given up: it was waited for until" in fails(task, given)
    assert calls() == ["open_run", "open_run", "fail_run"]


def test_a_study_that_is_busy_is_no_trouble(operator: Any) -> None:
    given = context()
    remember(given, trouble_s=9e9)

    waits_s(operator("open_run", "busy"), given)
    assert state(given)["trouble_s"] == 0


@pytest.mark.parametrize(
    ("schedule", "timezone", "after", "then"),
    [
        ("0 1 * * *", "UTC", "2026-03-01T00:59", "2026-03-01T01:00"),
        ("0 1 * * *", "UTC", "2026-03-01T01:00", "2026-03-02T01:00"),
        ("@quarterly", "UTC", "2026-03-01T01:00", "2026-04-01T00:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:30"),  # 02:30 is not
        ("0 12 * * 1", "Europe/Berlin", "2026-03-29T12:00", "2026-03-30T10:00"),
    ],
)
def test_the_next_time_is_the_schedulers(
    schedule: str, timezone: str, after: str, then: str
) -> None:
    from automl_airflow.waiting import next_time

    found = next_time(schedule, timezone, datetime.fromisoformat(f"{after}+00:00"))

    assert found == datetime.fromisoformat(f"{then}+00:00")


# --- pools ---


def check_at(operator: Any, monkeypatch: pytest.MonkeyPatch, url: str) -> Any:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", url)
    return operator("check")


def test_check_names_missing_pools(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with api_server(200, "automl_gpu") as url:
        message = fails(check_at(operator, monkeypatch, url), context())

    assert "airflow pools set automl_gpu 2" in message


def test_check_goes_on_where_the_pools_cannot_be_asked_for(
    operator: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with api_server(404) as url:
        result = check_at(operator, monkeypatch, url).execute(context())

    assert result["payload"]["spec"]["name"] == "leaves"
    assert "The pools could not be checked" in caplog.text
    assert "`airflow pools list` must show automl_cpu and automl_gpu" in caplog.text


def test_check_waits_for_an_api_server_that_is_in_trouble(
    operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api_server(503) as url:
        assert waits_s(check_at(operator, monkeypatch, url), context()) <= 6.25
    given = context()
    assert waits_s(check_at(operator, monkeypatch, url), given) <= 6.25  # nobody listens there
    assert state(given)["count"] == 1
