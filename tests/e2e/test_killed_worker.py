"""Workers' processes are killed under a real Airflow, and the run publishes all the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from automl.domain.events import TrialFinished
from automl.domain.layout import StudyKeys, checkpoint_epoch
from automl.domain.study import Study
from automl.domain.trial import Outcome, Trial, TrialState
from tests.e2e.conftest import Scenarios
from tests.nights import FORM_DAG, RUN_WITHIN_S, Night, NightRun, happens

MOST_DEATHS = 3  # attempts of one trial that may die


@dataclass(frozen=True)
class Killed:
    """A run of one worker, whose process was killed again and again.

    Attributes:
        kills: how often.
        study: its study.
        run: the run.
        trainings: trial and epoch of its newest checkpoint at each kill.
    """

    kills: int
    study: str
    run: NightRun
    trainings: list[tuple[int, int]]


def killed(kills: int, night: Night) -> Killed:
    """Kill the run's only worker whenever its training has got further than before."""
    study = f"killed-{kills}-times"
    run = night.trigger(
        FORM_DAG, night.form(study, workers=1, max_trials=2, time_limit="10m", slice="5m")
    )
    trainings: list[tuple[int, int]] = []
    limit_s = time.monotonic() + RUN_WITHIN_S
    while len(trainings) < kills:
        assert time.monotonic() < limit_s, f"killed at {trainings} only; {run.story()}"
        _kill_once(night, study, run, trainings)
        time.sleep(0.1)
    return Killed(kills, study, run.wait(), trainings)


def _kill_once(night: Night, study: str, run: NightRun, trainings: list[tuple[int, int]]) -> None:
    """Kill the worker and note its training, if that has got further than at the last kill.

    The process is halted before the decision, so that its trial cannot end in between.
    """
    last = trainings[-1] if trainings else (-1, 0)
    if (_training(night, study) or last) <= last:
        return
    for process in run.processes_of("run_worker"):
        process.suspend()
        now = _training(night, study)
        if now is not None and now > last:
            process.kill()
            trainings.append(now)
        else:
            process.resume()


def _training(night: Night, study: str) -> tuple[int, int] | None:
    """Return number and newest checkpoint's epoch of the trial that is trained, if it has one."""
    claimed = [t for t in night.study(study).trials if t.state is TrialState.CLAIMED]
    epochs = [(trial.number, _newest_epoch(night, study, trial)) for trial in claimed]
    return next(((number, epoch) for number, epoch in epochs if epoch >= 1), None)


def _newest_epoch(night: Night, study: str, trial: Trial) -> int:
    keys = StudyKeys(study).trial(trial.number, trial.attempt)
    stored = night.home.store.list(keys.checkpoints)
    return max((checkpoint_epoch(entry.key) for entry in stored), default=0)


THREE, FIVE = partial(killed, 3), partial(killed, 5)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(THREE, marks=happens(THREE)),
        pytest.param(FIVE, marks=[happens(FIVE), pytest.mark.soak]),
    ],
    ids=["3", "5"],
)
def after(scenarios: Scenarios, request: pytest.FixtureRequest) -> Killed:
    scenario: Callable[[Night], Killed] = request.param
    return scenarios.outcome(scenario)


@pytest.fixture(scope="module")
def study(after: Killed, night: Night) -> Study:
    assert len(after.trainings) == after.kills
    return night.study(after.study)


def test_no_retry_was_used(after: Killed) -> None:
    assert set(after.run.tries().values()) == {1}


def test_each_kill_cost_one_attempt(after: Killed, study: Study) -> None:
    kills = Counter(number for number, _ in after.trainings)

    for trial in study.trials:
        if kills[trial.number] > MOST_DEATHS:
            assert trial.outcome is Outcome.LOST
        else:
            assert trial.deaths == kills[trial.number]
            assert trial.attempt >= kills[trial.number] + 1


def test_trainings_went_on_from_their_checkpoints(after: Killed, study: Study) -> None:
    for number, epoch in after.trainings:
        trial = study.trials[number]
        if trial.outcome is not Outcome.LOST:
            assert trial.measurement.resumed_at >= epoch


def test_every_trial_finished_once(after: Killed, night: Night, study: Study) -> None:
    events = (event for _, event in night.home.study_log(after.study).read())
    finished = Counter(event.n for event in events if isinstance(event, TrialFinished))
    assert finished == dict.fromkeys(range(len(study.trials)), 1)
    identities = [trial.candidate.identity for trial in study.trials if trial.candidate]
    assert len(set(identities)) == len(study.trials)


def test_the_run_published_a_good_model(after: Killed, night: Night, study: Study) -> None:
    assert study.runs[-1].promoted
    assert night.champion(after.study).metrics["accuracy"].value > 0.5  # a guess has 0.1
