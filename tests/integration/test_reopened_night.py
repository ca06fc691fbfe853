"""A night that fails at every step, is cleared each time, and ends with a version all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl.doctor.audit import replay_study
from automl.domain.events import RunState, TrialClaimed
from automl.domain.invariants import violations
from automl.domain.settings import Settings
from automl.domain.study import Study
from automl.runs.run_lease import is_run_alive
from automl.steps.dispatch import run_named_step
from automl.steps.versions import verify_version
from automl.storage.home import Home
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from tests.homes import use_home

RUN, ORIGIN = "automl_noise.scheduled", "airflow:automl_noise"
WAIT_S = 120.0


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    home = use_home(tmp_path / "home", monkeypatch)
    monkeypatch.setenv("AUTOML_SOURCES", str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "rows.npz", allow_pickle=False, x=pixels, y=np.arange(60) % 2)
    return Settings(str(home), sources=(str(tmp_path),))


def payload(settings: Settings) -> dict[str, Any]:
    return {
        "spec": {
            "name": "noise",
            "task": "image_classification",
            "data": {"source": f"{settings.sources[0]}/rows.npz"},
            "search": {"time_limit": "5m", "workers": 1, "max_trials": 2, "strategy": "random"},
            "final_fit": {"time_limit": "4s"},
        },
        "run": RUN,
        "origin": ORIGIN,
        "worker": 0,
    }


def home_of(settings: Settings) -> Home:
    return open_home(settings)


def study_in(settings: Settings) -> Study:
    return StudyRecord(home_of(settings).study_log("noise")).refresh()


def state_of(settings: Settings) -> RunState:
    return study_in(settings).runs[-1].state


def test_a_night_that_fails_at_every_step_and_is_cleared_ends_with_one_whole_version(
    settings: Settings,
) -> None:
    call = payload(settings)
    snapshot = run_named_step("prepare", call)
    assert isinstance(snapshot, dict)
    call["snapshot"] = snapshot["snapshot"]
    results: dict[str, Any] = {}

    for step in ("open_run", "run_worker", "choose", "final_fit", "export", "evaluate", "promote"):
        results[step] = run_named_step(step, call)
        if step != "promote":
            run_named_step("fail_run", call | {"cause": f"{step}: its result was lost"})
            assert state_of(settings) is RunState.FAILED
            again = run_named_step(step, call)  # it is cleared
            assert again == results[step] or step == "run_worker"  # which tells of its own work
            assert state_of(settings) is RunState.OPEN

    (run,) = study_in(settings).runs
    assert (run.state, run.version, run.promoted) == (RunState.SUCCEEDED, 1, True)
    assert results["promote"]["version"] == 1
    assert verify_version(settings, "noise@1")["ok"]
    assert replay_study(settings, "noise")["ok"]
    events = home_of(settings).study_log("noise").read()
    assert violations(events) == []
    assert not is_run_alive(home_of(settings), "noise")
    before = study_in(settings)
    for step, result in results.items():  # and cleared once more
        if step != "run_worker":
            assert run_named_step(step, call) == result
    assert study_in(settings) == before


def test_a_search_that_begins_anew_and_whose_process_is_killed_goes_on(settings: Settings) -> None:
    call = payload(settings)
    snapshot = run_named_step("prepare", call)
    assert isinstance(snapshot, dict)
    run_named_step("open_run", call | {"snapshot": snapshot["snapshot"]})
    run_named_step("fail_run", call | {"cause": "choose: the store was away"})

    child = subprocess.Popen(
        [sys.executable, "-m", "automl.steps", "run_worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "AUTOML_RESULT_FD": "1"},
    )  # fmt: skip
    try:
        assert child.stdin is not None
        child.stdin.write(json.dumps(call).encode())
        child.stdin.close()
        limit_s = time.monotonic() + WAIT_S
        while not any(
            isinstance(event, TrialClaimed)
            for _, event in home_of(settings).study_log("noise").read()
        ):
            assert time.monotonic() < limit_s
            time.sleep(0.1)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    assert state_of(settings) is RunState.OPEN
    assert is_run_alive(home_of(settings), "noise")

    report = run_named_step("run_worker", call)

    assert isinstance(report, dict)
    assert report["state"] == "search_ended"
    (run,) = study_in(settings).runs
    assert run.outcomes == 2
    assert replay_study(settings, "noise")["ok"]
    assert violations(home_of(settings).study_log("noise").read()) == []
