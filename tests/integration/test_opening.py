"""Limits of a study, from its file to the log: measured once, recorded, obeyed or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from automl.domain.candidate import Candidate
from automl.domain.events import (
    Event,
    TrialClaimed,
    TrialFinished,
    TrialOpened,
    TrialProposed,
)
from automl.domain.settings import Settings
from automl.domain.study import Run, Study
from automl.domain.trial import Measurement, Outcome
from automl.errors import ConfigError, SearchError
from automl.morphism.architecture import Architecture
from automl.runs.proposals import search_space
from automl.steps.dispatch import run_named_step
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from automl.tracks.image.facts import SPACE_VERSION
from automl.tracks.image.spending import FULL_BUDGET
from tests.commands import automl
from tests.homes import use_home

MEMORY = {"batch_size", "evaluation_batch", "dataset_bytes", "shards", "bfloat16"}
FACTORS = {"ps_per_flop", "ps_per_byte", "ns_per_layer"}
TIGHT = {"parameters": 100, "latency_ms": 0.001, "device_memory": "1KB"}
WIDE = {"parameters": 10**6, "latency_ms": 1e3, "device_memory": "8GB"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(path, allow_pickle=False, x=pixels, y=np.arange(60) % 2)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


def document(rows: Path, limits: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "noise",
        "task": "image_classification",
        "data": {"source": str(rows)},
        "search": {"time_limit": "1m", "workers": 1, "max_trials": 1, "limits": limits},
    }


def study_in(home: Path) -> Study:
    return StudyRecord(open_home(Settings(str(home))).study_log("noise")).refresh()


def run_in(home: Path) -> Run:
    run = study_in(home).run("one")
    assert run is not None
    return run


def open_run(rows: Path, limits: dict[str, Any], times: int = 1) -> None:
    """Prepare the snapshot, and open the run as often as its task is tried."""
    payload = {"spec": document(rows, limits), "run": "one", "origin": "test"}
    prepared = run_named_step("prepare", payload)
    assert isinstance(prepared, dict)
    for _ in range(times):
        assert run_named_step("open_run", payload | {"snapshot": prepared["snapshot"]}) == [0]


@pytest.mark.parametrize(
    ("limits", "recorded"),
    [
        ({}, set()),
        ({"parameters": 10**6}, set()),
        ({"device_memory": "8GB"}, set()),
        ({"latency_ms": 1e3}, FACTORS),
        (WIDE, FACTORS),
    ],
)
def test_what_the_limits_depend_on_is_recorded_and_nothing_else(
    home: Path, rows: Path, limits: dict[str, Any], recorded: set[str]
) -> None:
    open_run(rows, limits)

    facts = run_in(home).space
    assert facts is not None
    space = facts.recorded
    assert space.keys() == {"image_size", "classes", "version", "epochs", *MEMORY, *recorded}
    assert space["version"] == SPACE_VERSION
    assert space["epochs"] == FULL_BUDGET.epochs
    assert space["bfloat16"] in {0, 1}
    assert space["batch_size"] == 36  # training rows of 60
    if recorded >= FACTORS:
        assert sum(int(space[name]) for name in FACTORS) > 0
        assert min(int(space[name]) for name in FACTORS) >= 0


def test_a_retry_keeps_the_factors_that_were_measured_first(
    home: Path, rows: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    open_run(rows, WIDE, times=3)

    study = study_in(home)
    assert len(study.runs) == 1
    assert study.version == 0  # nothing was written after the first
    assert caplog.text.count("latencies are predicted by") == 1


def test_limits_that_no_network_meets_are_refused_before_anything_is_written(
    home: Path, rows: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_run(rows, TIGHT)

    assert [problem.path for problem in caught.value.problems] == [
        f"search.limits.{name}" for name in TIGHT
    ]
    assert study_in(home).version == -1


def test_the_command_line_names_every_such_limit(home: Path, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(document(rows, TIGHT)))

    done = automl("run", str(tmp_path / "study.yaml"), "--json", settings=os.environ)

    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert {problem["path"] for problem in error["problems"]} == {
        f"search.limits.{name}" for name in TIGHT
    }
    assert all("the smallest has " in problem["message"] for problem in error["problems"])
    assert study_in(home).trials == ()


def complete(home: Path, candidates: Sequence[Candidate]) -> None:
    """Record a trial of run one for each candidate, each better than the one before."""
    study_log, head, at = (
        open_home(Settings(str(home))).study_log("noise"),
        study_in(home).version,
        datetime.now(UTC),
    )
    for n, one in enumerate(candidates):
        measured = Measurement(score=0.1 * n, loss=-0.1 * n, weights=f"weights-{n}")
        versions: list[list[Event]] = [
            [TrialOpened(at=at, n=n, run="one", worker="w")],
            [
                TrialProposed(at=at, n=n, candidate=one, based_on=head + 1, strategy="seed"),
                TrialClaimed(at=at, n=n, attempt=1, run="one", worker="w"),
                TrialFinished(
                    at=at, n=n, attempt=1, run="one", outcome=Outcome.COMPLETED,
                    measurement=measured,
                ),
            ],
        ]  # fmt: skip
        for events in versions:
            head = study_log.append(events, expected_version=head)


def choose(rows: Path, limits: dict[str, Any]) -> object:
    """End run one, open run two and choose its winner."""
    payload = {"spec": document(rows, limits), "run": "one", "origin": "test", "cause": "ended"}
    run_named_step("fail_run", payload)
    payload["run"] = "two"
    prepared = run_named_step("prepare", payload)
    assert isinstance(prepared, dict)
    run_named_step("open_run", payload | {"snapshot": prepared["snapshot"]})
    return run_named_step("choose", payload)


def parameters(candidate: Candidate) -> int:
    return Architecture.parse(candidate.genotype).parameters


def test_a_network_of_an_earlier_run_beyond_the_limits_is_not_published(
    home: Path, rows: Path
) -> None:
    open_run(rows, {})
    seeds = sorted(search_space(run_in(home)).seeds(), key=parameters)
    complete(home, seeds)

    winner = choose(rows, {"parameters": parameters(seeds[-1]) - 1})

    assert isinstance(winner, dict)
    assert winner["trial"] == len(seeds) - 2


def test_without_a_network_within_the_limits_there_is_no_winner(home: Path, rows: Path) -> None:
    open_run(rows, {})
    largest = max(search_space(run_in(home)).seeds(), key=parameters)
    complete(home, [largest])

    with pytest.raises(SearchError, match="No trial of study noise") as caught:
        choose(rows, {"parameters": parameters(largest) - 1})

    assert [(problem.path, problem.message) for problem in caught.value.problems] == [
        ("trial 0", "beyond search.limits")
    ]
