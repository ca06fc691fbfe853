"""The commands' output for people."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from automl.cli import app
from automl.domain.layout import MODEL_FILE
from automl.domain.settings import Settings
from automl.publishing.registry import Registry
from automl.scoring.interval import Interval
from automl.storage.open import open_home
from tests.shown import STUDY, write_study
from tests.versions import facts


@pytest.fixture
def home(tmp_path: Path) -> str:
    uri = str(tmp_path / "home")
    write_study(open_home(Settings(uri)))
    return uri


def printed(home: str, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--home", home])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_rungs_of_a_trial_are_shown_once_as_a_table(home: str) -> None:
    lines = printed(home, "show", STUDY, "1").splitlines()

    told = [place for place, line in enumerate(lines) if line.startswith("rungs")]
    assert [lines[place] for place in told] == ["rungs:"]
    table = [line.split() for line in lines[told[0] + 1 :] if line.strip()]
    assert table[0][:3] == ["rung", "epochs", "planned"]
    assert [row[:3] for row in table[2:4]] == [["1", "3", "30"], ["2", "10", "30"]]


def test_a_study_that_cannot_be_read_is_told_below_the_others(home: str) -> None:
    open_home(Settings(home)).store.put("studies/broken/log/000000000000.json", b"{")

    lines = printed(home, "studies").splitlines()

    assert [line.split()[0] for line in lines if " open " in line] == [STUDY]
    assert lines[-1].startswith("broken: error: studies/broken/log/000000000000.json")


def test_versions_are_listed_with_the_metric_that_was_optimised(home: str) -> None:
    registry = Registry(open_home(Settings(home)).store, STUDY)
    rmse = {"rmse": Interval(value=2.5, low=2.0, high=3.0, n=80)}
    told = facts("a").model_copy(update={"objective": "rmse", "metrics": rmse})
    registry.write(registry.claim_version("a"), {MODEL_FILE: b"file"}, told)

    table = [line.split() for line in printed(home, "models", STUDY).splitlines() if line.strip()]

    assert table[0] == ["version", "published_at", "promoted", "rmse", "weights", "onnx"]
    assert table[2][:5] == ["1", told.made_by["at"], "False", "2.5000", "-"]
    assert table[-1] == ["champion:", "None"]
