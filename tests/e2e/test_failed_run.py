"""A run that fails for good under a real Airflow, and the next one."""

from __future__ import annotations

import pytest

from automl.domain.events import RunState
from automl.domain.study import Study
from automl.runs.run_lease import is_run_alive
from automl.tracks.image.facts import SPACE_VERSION
from automl.tracks.image.spending import FULL_BUDGET
from tests.e2e.conftest import Scenarios
from tests.nights import FORM_DAG, Night, NightRun, happens

STUDY = "hasty"


def two_failures(night: Night) -> list[NightRun]:
    """Return two runs, one after the other, whose search is too short for a trial."""
    runs = []
    for _ in range(2):
        form = night.quick_form(STUDY, time_limit="5s")
        runs.append(night.trigger(FORM_DAG, form).wait("failed"))
        assert not is_run_alive(night.home, STUDY)
    return runs


pytestmark = happens(two_failures)


@pytest.fixture(scope="module")
def runs(scenarios: Scenarios) -> list[NightRun]:
    return scenarios.outcome(two_failures)


@pytest.fixture(scope="module")
def study(runs: list[NightRun], night: Night) -> Study:
    assert runs
    return night.study(STUDY)


def test_both_are_closed_with_the_cause(runs: list[NightRun], study: Study) -> None:
    assert [(run.name, run.state) for run in study.runs] == [
        (run.name, RunState.FAILED) for run in runs
    ]
    assert all(
        run.cause.startswith(f"choose: No trial of study {STUDY} has completed.")
        for run in study.runs
    )


def test_no_retry_was_used(runs: list[NightRun]) -> None:
    for run in runs:
        states, tries = run.states(), run.tries()
        assert (states["open_run"], tries["open_run"]) == ("success", 1)
        assert (states["choose"], tries["choose"]) == ("failed", 1)


def test_the_space_was_measured_for_the_time_there_was(study: Study) -> None:
    facts = study.runs[0].space
    assert facts is not None
    space = facts.recorded
    assert {"image_size": 8, "classes": 10, "version": SPACE_VERSION}.items() <= space.items()
    assert 1 <= int(space["epochs"]) <= FULL_BUDGET.epochs
    assert study.runs[1].snapshot == study.runs[0].snapshot
