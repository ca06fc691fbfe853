"""A night under a real Airflow: triggered by REST, hit by a kill, and published all the same."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from automl_airflow.local import LocalAirflow
from automl_airflow.rest import AirflowApiError

from automl.domain.events import TrialFinished
from automl.domain.settings import Settings
from automl.domain.study import Study
from automl.domain.trial import Trial, TrialState
from automl.errors import AutoMLError
from automl.storage.open import open_home
from automl.views.library import Library
from tests.searches import DAG_ID, WORKERS, champion_metrics, form, task_states

_CHECKPOINT_WITHIN_S, _RUN_WITHIN_S = 180.0, 600.0  # a busy machine takes long


def test_a_run_survives_the_kill_of_a_training_process(
    airflow: LocalAirflow, digits: Path, home: Path
) -> None:
    run_id = airflow.client.trigger(DAG_ID, form(digits, "e2e", max_trials=3, slice="5m"))
    running = _kill_a_worker(home, "e2e")

    state = airflow.client.wait(DAG_ID, run_id, _RUN_WITHIN_S)

    assert state == "success", task_states(airflow, run_id)
    study = Library(open_home(Settings(str(home)))).study("e2e")
    died = [trial for trial in study.trials if trial.deaths > 0]
    assert [trial.deaths for trial in died] == [1]
    assert died[0].number in running
    assert died[0].attempt >= 2
    assert died[0].measurement.resumed_at >= running[died[0].number] >= 1
    tries = [t["try_number"] for t in airflow.client.tasks(DAG_ID, run_id)]
    assert Counter(tries) == {1: len(tries) - 1, 2: 1}
    _assert_every_trial_finished_once(home, study)
    assert champion_metrics(home, "e2e")["accuracy"]["value"] > 0.5


def test_the_api_refuses_a_value_outside_the_form(airflow: LocalAirflow, digits: Path) -> None:
    with pytest.raises(AirflowApiError, match=r"400 .*workers"):
        airflow.client.trigger(DAG_ID, form(digits, "refused", workers=1000))


def test_check_names_an_unknown_key_in_its_log(airflow: LocalAirflow, digits: Path) -> None:
    run_id = airflow.client.trigger(DAG_ID, form(digits, "refused", wokers=3))

    state = airflow.client.wait(DAG_ID, run_id, _RUN_WITHIN_S)

    assert state == "failed"
    check = next(t for t in airflow.client.tasks(DAG_ID, run_id) if t["task_id"] == "check")
    assert (check["state"], check["try_number"]) == ("failed", 1)
    log = airflow.log_tail(DAG_ID, run_id, "check", lines=200)
    assert "The run's conf has unknown keys." in log
    assert "wokers: unknown; known here: " in log


def _kill_a_worker(home: Path, name: str) -> dict[int, int]:
    """Kill one of the training processes once all have a checkpoint; return their trials' epochs.

    The process is halted before the decision, so that its trial cannot end in between.
    """
    deadline_s = time.monotonic() + _CHECKPOINT_WITHIN_S
    while time.monotonic() < deadline_s:
        workers = _worker_processes(home)
        if len(workers) == WORKERS and len(_checkpointed(home, name)) == WORKERS:
            victim = workers[0]
            victim.suspend()
            running = _checkpointed(home, name)
            if len(running) == WORKERS:
                victim.kill()
                return running
            victim.resume()
        time.sleep(0.1)
    pytest.fail(f"no moment in {_CHECKPOINT_WITHIN_S:g} s at which all workers had a checkpoint")


def _worker_processes(home: Path) -> list[psutil.Process]:
    """Return the processes of `run_worker` that work for this home."""
    found = []
    for process in psutil.process_iter():
        try:
            is_worker = process.cmdline()[1:] == ["-m", "automl.steps", "run_worker"]
            if is_worker and process.environ().get("AUTOML_HOME") == str(home):
                found.append(process)
        except psutil.Error:  # it has ended, or is somebody else's
            continue
    return found


def _checkpointed(home: Path, name: str) -> dict[int, int]:
    """Return the epoch of the newest checkpoint of each claimed trial whose attempt has one."""
    try:
        study = Library(open_home(Settings(str(home)))).study(name)
    except AutoMLError:  # not opened yet
        return {}
    claimed = [trial for trial in study.trials if trial.state is TrialState.CLAIMED]
    epochs = {trial.number: _newest_epoch(home, name, trial) for trial in claimed}
    return {number: epoch for number, epoch in epochs.items() if epoch >= 1}


def _newest_epoch(home: Path, name: str, trial: Trial) -> int:
    folder = home / "studies" / name / "trials" / str(trial.number) / str(trial.attempt)
    files = folder.glob("checkpoint-*.safetensors")
    return max((int(file.stem.removeprefix("checkpoint-")) for file in files), default=0)


def _assert_every_trial_finished_once(home: Path, study: Study) -> None:
    log = open_home(Settings(str(home))).study_log("e2e")
    finished = Counter(event.n for _, event in log.read() if isinstance(event, TrialFinished))
    assert finished == dict.fromkeys(range(len(study.trials)), 1)
    identities = [trial.candidate.identity for trial in study.trials if trial.candidate]
    assert len(set(identities)) == len(study.trials)
