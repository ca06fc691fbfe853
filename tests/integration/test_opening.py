"""Limits of a study, from its file to the log: measured once, recorded, obeyed or refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from automl.domain.study import Run, Study
from automl.errors import ConfigError
from automl.steps.dispatch import run_named_step
from automl.steps.proposals import SPACE_VERSION
from automl.steps.training import RUNG
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord

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
    for name in [name for name in os.environ if name.startswith("AUTOML_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AUTOML_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def document(rows: Path, limits: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "noise",
        "task": "image_classification",
        "data": {"source": str(rows)},
        "search": {"time_limit": "1m", "workers": 1, "max_trials": 1, "limits": limits},
    }


def study_in(home: Path) -> Study:
    return StudyRecord(open_home(str(home)).study_log("noise")).refresh()


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
        ({"device_memory": "8GB"}, {"batch_size"}),
        ({"latency_ms": 1e3}, FACTORS),
        (WIDE, {"batch_size", *FACTORS}),
    ],
)
def test_what_the_limits_depend_on_is_recorded_and_nothing_else(
    home: Path, rows: Path, limits: dict[str, Any], recorded: set[str]
) -> None:
    open_run(rows, limits)

    space = run_in(home).space
    assert space is not None
    assert space.keys() == {"image_size", "classes", "version", *recorded}
    assert space["version"] == SPACE_VERSION
    assert space.get("batch_size", RUNG.batch_size) == RUNG.batch_size
    if recorded >= FACTORS:
        assert sum(space[name] for name in FACTORS) > 0
        assert min(space[name] for name in FACTORS) >= 0


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

    done = subprocess.run(
        [sys.executable, "-m", "automl.cli", "run", str(tmp_path / "study.yaml"), "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert {problem["path"] for problem in error["problems"]} == {
        f"search.limits.{name}" for name in TIGHT
    }
    assert all("the smallest has " in problem["message"] for problem in error["problems"])
    assert study_in(home).trials == ()
