"""A feed that loses a class stops a study's run under a real Airflow until a person accepts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl.steps.specs import PIPELINE
from tests.commands import automl, document_of
from tests.digits import digits
from tests.e2e.conftest import Scenarios
from tests.nights import Night, NightRun, happens

STUDY, ROWS, CLASSES, GONE = "gated", 120, 4, 3
LOST = "1 class is gone, of 4: '3' (30 rows)"
WHY = "the farm grows no threes any more"


@dataclass(frozen=True)
class Gated:
    """Runs of a study whose feed loses a class after the first, which was no DAG's.

    Attributes:
        first: what `automl run` told of the first.
        stopped: the run that the data gate stopped.
        accepted: what `automl data accept` told after that.
        passed: the run after that, on the same rows; it was given up once it was open.
    """

    first: dict[str, Any]
    stopped: NightRun
    accepted: dict[str, Any]
    passed: NightRun


def gated(night: Night) -> Gated:
    """Take a class out of the feed after a run, and accept the rest once a run has been stopped."""
    feed, dag_id = night.few.with_name(f"{STUDY}.npz"), f"automl_{STUDY}"
    at_home = ("--home", night.home.store.uri, "--json")
    x, y = (rows[:ROWS] for rows in digits(CLASSES))
    _deliver(feed, x, y)
    study = night.write_study(STUDY, data={"source": str(feed), "gate": {"on_change": "stop"}})
    first = document_of(automl("run", str(study), *at_home))

    _deliver(feed, x[y != GONE], y[y != GONE])
    night.wait_for_dag(dag_id)
    stopped = night.trigger(dag_id).wait("failed")
    accepted = document_of(automl("data", "accept", STUDY, "--why", WHY, *at_home))
    passed = night.trigger(dag_id)
    passed.wait_for_task("open_run", "success")
    path = f"dags/{dag_id}/dagRuns/{passed.run_id}"
    night.airflow.client.call("PATCH", path, {"state": "failed"})  # the rest has tests of its own
    return Gated(first, stopped, accepted, passed)


def _deliver(feed: Path, x: np.ndarray, y: np.ndarray) -> None:
    partial = feed.with_suffix(".partial.npz")
    np.savez(partial, x=x, y=y)
    partial.rename(feed)


pytestmark = happens(gated)


@pytest.fixture(scope="module")
def after(scenarios: Scenarios) -> Gated:
    return scenarios.outcome(gated)


def test_the_run_ends_in_prepare_without_a_retry(after: Gated) -> None:
    run, later = after.stopped, {step.task for step in PIPELINE} - {"check", "prepare"}

    assert run.states() == {
        "check": "success", "prepare": "failed", **dict.fromkeys(later, "upstream_failed"),
    }  # fmt: skip
    assert run.tries() == {"check": 1, "prepare": 1, **dict.fromkeys(later, 0)}
    assert run.attempts("prepare") == 1


def test_the_log_names_the_class_and_the_remedy(after: Gated) -> None:
    log = after.stopped.log("prepare")

    assert f"The data of study {STUDY} have changed suspiciously since its last run" in log
    assert LOST in log
    assert f"automl data accept {STUDY} --why" in log


def test_no_run_and_no_trial_is_recorded_of_it(after: Gated, night: Night) -> None:
    study, kept = night.study(STUDY), {after.first["run"], after.passed.name}

    assert {run.name for run in study.runs} == kept
    assert {trial.run for trial in study.trials} <= kept


def test_acceptance_opens_the_next_run_on_those_rows(after: Gated) -> None:
    states, run = after.passed.states(), after.passed.in_log(STUDY)

    assert [change["message"] for change in after.accepted["changes"]] == [LOST]
    assert (after.accepted["changed"], after.accepted["why"]) == (True, WHY)
    assert (states["prepare"], states["open_run"]) == ("success", "success")
    assert run.snapshot == after.accepted["snapshot"] != after.accepted["before"]
    assert LOST in {change.message for change in run.changes if change.is_suspicious}
