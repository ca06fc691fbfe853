"""A worker's process is killed under a real Airflow, and the run publishes all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from automl.domain.events import TrialFinished
from automl.domain.study import Study
from automl.domain.trial import Outcome
from tests.e2e.conftest import Scenarios
from tests.e2e.repairs import PLANS, Repairs
from tests.nights import Night

MOST_DEATHS = 3  # attempts of one trial that may die


@pytest.fixture(scope="module", params=PLANS)
def after(scenarios: Scenarios, request: pytest.FixtureRequest) -> Repairs:
    scenario: Callable[[Night], Repairs] = request.param
    return scenarios.outcome(scenario)


@pytest.fixture(scope="module")
def study(after: Repairs, night: Night) -> Study:
    assert len(after.trainings) == after.plan.kills
    return night.study(after.plan.study)


def test_no_retry_was_used(after: Repairs) -> None:
    assert set(after.tries.values()) == {1}


def test_each_kill_cost_one_attempt(after: Repairs, study: Study) -> None:
    kills = Counter(number for number, _ in after.trainings)

    for number, count in kills.items():
        trial = study.trials[number]
        if count > MOST_DEATHS:
            assert trial.outcome is Outcome.LOST
        else:
            assert trial.deaths == count
            assert trial.attempt >= count + 1


def test_trainings_went_on_from_their_checkpoints(after: Repairs, study: Study) -> None:
    for number, epoch in after.trainings:
        trial = study.trials[number]
        if trial.outcome is not Outcome.LOST:
            assert trial.measurement.resumed_at >= epoch


def test_every_trial_finished_once(after: Repairs, night: Night, study: Study) -> None:
    events = (event for _, event in night.home.study_log(after.plan.study).read())
    finished = Counter(event.n for event in events if isinstance(event, TrialFinished))
    assert finished == dict.fromkeys(range(len(study.trials)), 1)
    identities = [trial.candidate.identity for trial in study.trials if trial.candidate]
    assert len(set(identities)) == len(study.trials)


def test_the_run_published_a_good_model(after: Repairs, study: Study) -> None:
    assert study.runs[0].promoted
    assert after.manifest.run == after.first.name
    assert after.manifest.metrics["accuracy"].value > 0.5  # a guess has 0.1
