"""A search whose workers die at random moments: the log tells one story, and it can be replayed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from automl.domain.events import TrialProposed
from automl.domain.settings import Settings
from automl.domain.study import replay
from automl.runs.replay import replay_document
from automl.storage.open import open_home
from tests.crash.checks import faults_of_search
from tests.crash.conftest import MakePlace
from tests.crash.night import STUDY, Night, Place, small_study

WORKERS, ROWS = 3, 300  # rows enough for kills that find a trial between two checkpoints


def search_with_kills(place: Place, folder: Path, *, trials: int, kills: int, seed: int) -> None:
    """Search, kill, and check what the log says."""
    study = small_study(folder / "rows.npz", workers=WORKERS, trials=trials, rows=ROWS)
    night = Night(place, study)
    for step in ("prepare", "open_run"):
        night.run(step)

    night.search_with_kills(kills, random.Random(seed))  # noqa: S311 - a fixed choice

    home = open_home(place.settings)
    assert faults_of_search(home, night) == []
    events = home.study_log(STUDY).read()
    proposed = [event for _, event in events if isinstance(event, TrialProposed)]
    assert len(proposed) == trials
    assert any(trial.measurement.resumed_at > 0 for trial in replay(events).trials)
    assert {event.strategy for event in proposed} >= {"seed", "bayesian"}
    document = replay_document(home, STUDY)
    assert document == {
        "schema": 1, "study": STUDY, "ok": True, "trials": trials, "different": [],
    }  # fmt: skip
    assert replayed_elsewhere(place) == document


def replayed_elsewhere(place: Place) -> object:
    """Return what the command says in another process."""
    command = [str(Path(sys.executable).parent / "automl"), "replay", STUDY, "--json"]
    environment = {**place.settings.child_environment(os.environ), **place.environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_twenty_kills_leave_every_observation_once(tmp_path: Path) -> None:
    place = Place(Settings(str(tmp_path / "home")))

    search_with_kills(place, tmp_path, trials=24, kills=20, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", [2, 3])
def test_a_hundred_kills_leave_every_observation_once(
    seed: int, make_place: MakePlace, tmp_path: Path
) -> None:
    search_with_kills(make_place(), tmp_path, trials=100, kills=100, seed=seed)
