"""Tasks of runs that are over are cleared under a real Airflow, and their runs go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from automl.domain.events import RunState
from tests.e2e.conftest import Scenarios
from tests.e2e.repairs import PLANS, UP_TO_CHOICE, Repairs
from tests.nights import Night


@pytest.fixture(scope="module", params=PLANS)
def after(scenarios: Scenarios, request: pytest.FixtureRequest) -> Repairs:
    scenario: Callable[[Night], Repairs] = request.param
    return scenarios.outcome(scenario)


def test_failed_runs_are_reopened_and_publish(after: Repairs) -> None:
    assert [cleared.task for cleared in after.failed] == list(after.plan.failed)
    for cleared in after.failed:
        assert cleared.before.state is RunState.FAILED
        assert "AccessDenied" in cleared.before.cause
        assert (cleared.before.winner is None) == (cleared.task in UP_TO_CHOICE)
        assert cleared.after.state is RunState.SUCCEEDED
        assert cleared.manifest.run == cleared.after.name
        assert cleared.manifest.trial == cleared.after.winner


def test_a_finished_run_keeps_its_version(after: Repairs) -> None:
    assert [cleared.task for cleared in after.finished] == list(after.plan.finished)
    for cleared in after.finished:
        assert cleared.before.state is RunState.SUCCEEDED
        assert cleared.after == cleared.before, cleared.task
        assert cleared.manifest == after.manifest, cleared.task


def test_the_champion_never_goes_back_to_an_older_run(after: Repairs) -> None:
    newest = after.failed[-1].manifest.version

    assert newest > after.manifest.version
    assert {cleared.champion for cleared in after.finished} == {newest}
