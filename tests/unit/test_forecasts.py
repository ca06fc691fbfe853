from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from automl.runs.proposals import search_space
from benchmarks.calibration import HISTORIES, read_history
from benchmarks.forecasts import CONSTANT, PARAMETERS, SURROGATE, Forecast, calibration, forecasts

PATHS = sorted(HISTORIES.glob("*.jsonl.gz"))


@cache
def rows(path: Path) -> tuple[Mapping[str, Forecast], ...]:
    study = read_history(path)
    return tuple(forecasts(study, search_space(study.runs[0])))


def test_there_are_five_histories_of_fifty_trials() -> None:
    assert len(PATHS) >= 5
    for path in PATHS:
        measured = [trial for trial in read_history(path).trials if trial.loss is not None]
        assert len(measured) >= 50


def test_the_intervals_hold_what_they_promise() -> None:
    made = [row[SURROGATE] for path in PATHS for row in rows(path)]

    assert len(made) >= 200
    assert 0.90 <= calibration(made).coverage <= 0.98


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name.partition(".")[0])
def test_it_predicts_better_than_simpler_models(path: Path) -> None:
    likelihoods = {
        model: calibration([row[model] for row in rows(path)]).log_likelihood
        for model in (SURROGATE, CONSTANT, PARAMETERS)
    }

    assert max(likelihoods, key=lambda model: likelihoods[model]) == SURROGATE


def test_a_forecast_is_a_normal_distribution() -> None:
    forecast = Forecast(mean=1.0, std=2.0, target=4.0)

    assert forecast.log_likelihood == pytest.approx(
        math.log(math.exp(-0.5 * 1.5**2) / (2 * math.sqrt(2 * math.pi)))
    )
    assert forecast.is_covered
    assert not Forecast(mean=1.0, std=2.0, target=5.0).is_covered


def test_calibration_counts_and_averages() -> None:
    made = [Forecast(0.0, 1.0, 0.0), Forecast(0.0, 1.0, 3.0)]

    found = calibration(made)

    assert (found.count, found.coverage) == (2, 0.5)
    assert found.error == pytest.approx(math.sqrt(4.5))
    assert found.log_likelihood == pytest.approx(-0.5 * math.log(2 * math.pi) - 2.25)
