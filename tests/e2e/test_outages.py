"""The store goes away in several tasks of runs under a real Airflow: they wait and publish."""

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
    """A run whose store was away in some of its tasks.

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


def troubled(away_s: int, tasks: tuple[str, ...], night: Night) -> Troubled:
    """Cut the line for so long in each of some tasks of a run on CPUs."""
    study = "-".join(["away-for", str(away_s), *tasks]).replace("_", "-")
    outages = {task: Outage(night.line, study, BEGINNINGS[task], away_s) for task in tasks}
    form = night.quick_form(
        study, retrain=True, time_limit="8h", resources_gpus=0, priority=PRIORITY
    )
    run = night.trigger(FORM_DAG, form)
    labels: set[str | None] = set()

    def has_searched() -> bool:
        searching = [task for task in run.tasks() if task["task_id"] == "search"]
        labels.update(t["rendered_map_index"] for t in searching if t["state"] == "running")
        return {task["state"] for task in searching} <= {"success", "failed", "upstream_failed"}

    within_s = RUN_WITHIN_S + 2 * away_s * len(tasks)
    until(has_searched, "the search ends", within_s)
    run.wait(within_s=within_s)
    return Troubled(study, run, {task: each.lost for task, each in outages.items()}, labels)


SHORT = partial(troubled, 45, tuple(BEGINNINGS))
LONG = [partial(troubled, away_s, (task,)) for away_s in (300, 1800) for task in BEGINNINGS]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SHORT, marks=happens(SHORT)),
        *(pytest.param(each, marks=[happens(each), pytest.mark.soak]) for each in LONG),
    ],
    ids=lambda scenario: "-".join([str(scenario.args[0]), *scenario.args[1]]),
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
