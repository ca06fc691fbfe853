"""The command line as a process: exit codes, JSON documents and error messages."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from automl.tracks.image.decode import encode_png
from tests import commands


def automl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`, where also its home is."""
    settings = {"AUTOML_HOME": str(folder / "home")}
    return commands.automl(*arguments, settings=settings, folder=folder)


def write_study(folder: Path, **sections: Any) -> str:
    document = {"name": "pictures", "task": "image_classification", **sections}
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    return "study.yaml"


def error_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    error: dict[str, Any] = document["error"]
    assert set(error) == {"type", "message", "hint", "problems"}
    return error


def test_six_mistakes_are_six_problems_and_nothing_is_written(tmp_path: Path) -> None:
    study = write_study(
        tmp_path,
        name="No Spaces",
        data={"source": "rows.npz", "validation_fraction": 1.5, "colour": "red"},
        search={"time_limit": "soon", "workers": 0, "objective": "speed"},
    )

    done = automl(tmp_path, "run", study, "--json")

    assert done.returncode == 2
    error = error_of(done)
    assert error["type"] == "ConfigError"
    assert "6 problems" in error["message"]
    assert sorted(problem["path"] for problem in error["problems"]) == [
        "data.colour",
        "data.validation_fraction",
        "name",
        "search.objective",
        "search.time_limit",
        "search.workers",
    ]
    assert all(problem["message"] for problem in error["problems"])
    assert not (tmp_path / "home").exists()


def test_without_json_the_problems_are_lines_on_standard_error(tmp_path: Path) -> None:
    study = write_study(tmp_path, data={"source": "rows.npz"}, search={"workers": 0, "seeds": 1})

    done = automl(tmp_path, "run", study)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "  - search.workers: " in done.stderr
    assert "  - search.seeds: " in done.stderr


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    study = write_study(tmp_path, data={"source": "absent.npz"})

    done = automl(tmp_path, "run", study, "--json")

    assert done.returncode == 2
    (problem,) = error_of(done)["problems"]
    assert problem["path"] == "data.source"
    assert "absent.npz" in problem["message"]
    assert not (tmp_path / "home").exists()


def test_a_study_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = automl(tmp_path, "run", "absent.yaml", "--json")

    assert done.returncode == 2
    assert "absent.yaml" in error_of(done)["message"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run"], "Missing argument"),
        (["fly"], "No such command"),
        (["run", "study.yaml", "--fast"], "No such option"),
        (["show", "digits", "first"], "Invalid value"),
    ],
)
def test_wrong_usage_exits_with_2(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    done = automl(tmp_path, *arguments)

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["sample", "letters", "out"], 2),
        (["verify", "nothing"], 2),
        (["predict", "nothing", "image.png"], 2),
    ],
)
def test_a_name_that_does_not_exist_is_an_error(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    done = automl(tmp_path, *arguments, "--json")

    assert done.returncode == code
    error = error_of(done)
    assert arguments[1] in error["message"]
    assert error["hint"]


def test_too_many_unreadable_images_are_listed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    lines = ["File Name,Label"]
    for number in range(60):
        name = f"{number:03d}.png"
        data = encode_png(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        (tmp_path / "images" / name).write_bytes(data if number >= 6 else data[:20])
        lines.append(f"{name},{'ab'[number % 2]}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    study = write_study(tmp_path, data={"source": "train.csv", "images": "images"})

    done = automl(tmp_path, "run", study, "--json")

    assert done.returncode == 2
    error = error_of(done)
    assert error["type"] == "DataError"
    listed = {problem["path"]: problem["message"] for problem in error["problems"]}
    assert sorted(listed) == [f"{number:03d}.png" for number in range(6)]
    assert "decoded" in listed["000.png"]
    assert "Scheduler" not in done.stderr  # what Dask says of itself


def test_the_sample_is_a_study_that_can_be_run(tmp_path: Path) -> None:
    done = automl(tmp_path, "sample", "digits", "out", "--json")

    assert done.returncode == 0
    study = tmp_path / json.loads(done.stdout)["study"]
    assert yaml.safe_load(study.read_text())["name"] == "digits"
    assert len(list((tmp_path / "out" / "images").iterdir())) == 1797
