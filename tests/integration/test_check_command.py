"""`automl check`: every problem of a study file by hand, without running it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from automl.cli import app


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("path,label\na.png,a\n")
    path = tmp_path / "study.yaml"
    path.write_text("name: cress\ntask: image_classification\ndata: {source: data/train.csv}\n")
    return path


def run(study: Path, home: str, code: int) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["check", str(study), "--home", home, "--json"])
    assert done.exit_code == code, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def problems(document: dict[str, Any]) -> dict[str, str]:
    assert document["schema"] == 1
    assert document["error"]["type"] == "ConfigError"
    return {problem["path"]: problem["message"] for problem in document["error"]["problems"]}


def test_a_whole_study_is_fine_and_nothing_is_left_behind(study: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"

    assert run(study, str(home), 0) == {
        "schema": 1, "ok": True, "study": "cress", "task": "image_classification",
        "schedule": "0 1 * * *", "timezone": "UTC", "home": str(home),
    }  # fmt: skip
    assert not [path for path in home.rglob("*") if path.is_file() and ".locks" not in path.parts]
    done = CliRunner().invoke(app, ["check", str(study), "--home", str(home)])
    assert done.stdout == f"study cress can run; home {home}\n"


def test_everything_is_told_at_once(study: Path, tmp_path: Path) -> None:
    study.write_text(
        "name: cress\ntask: image_classification\nsearch: {workers: 0, seed: 0x_}\n"
        "data: {source: nowhere.csv, images: data}\n"
    )

    told = problems(run(study, str(tmp_path / "home"), 2))
    assert told.keys() == {"search.workers", "search.seed", "data.source"}
    assert "nowhere.csv" in told["data.source"]


def test_a_source_that_may_not_be_read_is_told(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_SOURCES", str(tmp_path / "elsewhere"))

    told = problems(run(study, str(tmp_path / "home"), 2))
    assert "outside the places that studies may read" in told["data.source"]


def test_a_home_that_cannot_be_used_is_told_with_the_rest(study: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    study.write_text("name: cress\n")

    told = problems(run(study, str(tmp_path / "home"), 2))
    assert {"task", "data", ""} <= told.keys()


@pytest.mark.parametrize("content", [b"", b"\x00", b"[" * 3000, b"a: &a *a", b"\xff"])
def test_any_content_is_told(content: bytes, study: Path, tmp_path: Path) -> None:
    study.write_bytes(content)

    assert run(study, str(tmp_path / "home"), 2)["error"]["message"]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    document = run(tmp_path / "nowhere.yaml", str(tmp_path / "home"), 2)

    assert "cannot be read: No such file" in document["error"]["message"]
