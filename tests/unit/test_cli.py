"""What the commands print for people."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from automl.cli import app
from automl.storage.open import open_home
from tests.shown import STUDY, write_study


@pytest.fixture
def home(tmp_path: Path) -> str:
    uri = str(tmp_path / "home")
    write_study(open_home(uri))
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
