"""Fleets of workers on every kind of home: no trial is lost, and none is there twice."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from automl.domain.events import TrialClaimed
from automl.domain.settings import Settings
from automl.storage.open import open_home
from benchmarks.fleet import STUDY, Fleet, faults, run_fleet
from benchmarks.studies import RUN
from tests.homes import settings_for

FEW = Fleet(workers=6, trials=12)
LARGE = [
    pytest.param(kind, workers, id=f"{kind} {workers}")
    for kind, workers in (
        ("file", 64), ("file", 256), ("postgres", 64), ("postgres", 256), ("s3", 64),
    )
]  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "postgres", "s3"])
def test_a_small_fleet_loses_and_doubles_nothing(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    settings = settings_for(kind, request, tmp_path)

    found = run_fleet(settings, FEW)

    assert faults(settings, FEW) == []
    assert found["claims"] == FEW.trials


def test_a_trial_that_is_claimed_twice_or_lost_is_found(tmp_path: Path) -> None:
    settings, fleet = Settings(str(tmp_path)), Fleet(workers=1, trials=3)
    run_fleet(settings, fleet)
    log = open_home(settings).study_log(STUDY)
    again = TrialClaimed(at=datetime.now(UTC), n=1, attempt=2, run=RUN, worker="zombie")
    log.append([again], expected_version=log.read()[-1][0])

    assert faults(settings, fleet)[0] == "TrialClaimed: {1: 1} too often, {} missing"
    lost = faults(settings, Fleet(workers=1, trials=4))
    assert "TrialFinished: {} too often, {3: 1} missing" in lost


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "workers"), LARGE)
def test_a_large_fleet_loses_and_doubles_nothing(
    kind: str, workers: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    settings = settings_for(kind, request, tmp_path)
    fleet = Fleet(workers, trials=4 * workers)

    found = run_fleet(settings, fleet)

    assert faults(settings, fleet) == []
    assert found["claims"] == fleet.trials
