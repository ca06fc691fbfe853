"""The store goes away three times during a run under a real Airflow: it waits and publishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pytest

from automl.domain.events import RunState
from tests.e2e.conftest import Scenarios
from tests.faulty_proxy import Matcher, Request
from tests.nights import FORM_DAG, RUN_WITHIN_S, Night, NightRun, Outage, happens, until

PRIORITY = 3


def _writes(*parts: str) -> Matcher:
    """Return what tells writes of the objects whose keys have all `parts`."""

    def is_one(request: Request) -> bool:
        return request.method == "PUT" and all(part in request.path for part in parts)

    return is_one


BEGINNINGS: Mapping[str, Matcher] = {
    "search": _writes("/trials/", "/checkpoint-"),
    "final_fit": _writes("/runs/", "/final-fit"),
    "promote": _writes("/promotions/"),
}


@dataclass(frozen=True)
class Troubled:
    """A run whose store was away in three of its tasks.

    Attributes:
        study: its study.
        run: the run.
        lost: how many requests got no answer, by task.
        labels: of its search while that ran.
    """

    study: str
    run: NightRun
    lost: dict[str, int]
    labels: set[str | None]


def troubled(away_s: int, night: Night) -> Troubled:
    """Cut the line for so long in each of three tasks of a run on CPUs."""
    study = f"away-for-{away_s}"
    outages = {
        task: Outage(night.line, study, begins, away_s) for task, begins in BEGINNINGS.items()
    }
    form = night.quick_form(
        study, retrain=True, time_limit="8h", resources_gpus=0, priority=PRIORITY
    )
    run = night.trigger(FORM_DAG, form)
    labels: set[str | None] = set()

    def has_searched() -> bool:
        searching = [task for task in run.tasks() if task["task_id"] == "search"]
        labels.update(t["rendered_map_index"] for t in searching if t["state"] == "running")
        return {task["state"] for task in searching} <= {"success", "failed", "upstream_failed"}

    within_s = RUN_WITHIN_S + 6 * away_s
    until(has_searched, "the search ends", within_s)
    run.wait(within_s=within_s)
    return Troubled(study, run, {task: each.lost for task, each in outages.items()}, labels)


SHORT, LONG, LONGEST = (partial(troubled, away_s) for away_s in (45, 300, 1800))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SHORT, marks=happens(SHORT)),
        pytest.param(LONG, marks=[happens(LONG), pytest.mark.soak]),
        pytest.param(LONGEST, marks=[happens(LONGEST), pytest.mark.soak]),
    ],
    ids=["45s", "5min", "30min"],
)
def after(scenarios: Scenarios, request: pytest.FixtureRequest) -> Troubled:
    scenario: Callable[[Night], Troubled] = request.param
    return scenarios.outcome(scenario)


def test_the_store_was_away_in_each_task(after: Troubled) -> None:
    assert all(lost > 0 for lost in after.lost.values()), after.lost


def test_no_retry_was_used(after: Troubled) -> None:
    assert set(after.run.tries().values()) == {1}


def test_the_run_published(after: Troubled, night: Night) -> None:
    run = after.run.in_log(after.study)
    assert (run.state, run.promoted, run.outcomes) == (RunState.SUCCEEDED, True, 1)
    champion = night.champion(after.study)
    assert (champion.version, champion.run) == (1, run.name)
