"""Two runs of the same study with the same seed are the same, as far as no time is measured."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.digits import write_digits

ROWS = 400
MEASURED = ("latency_ms", "seconds")  # of a leaderboard's rows; they decide nothing


def write_study(folder: Path) -> Path:
    write_digits(folder / "rows.npz", ROWS)
    document = {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": "rows.npz"},
        "search": {"time_limit": "10m", "max_trials": 6, "workers": 1, "seed": 7},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    return folder / "study.yaml"


def automl(*arguments: str) -> dict[str, Any]:
    environment = {key: value for key, value in os.environ.items() if "AUTOML" not in key}
    done = subprocess.run(
        [sys.executable, "-m", "automl.cli", *arguments, "--json"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_two_runs_publish_the_same_bytes(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    found = []
    for name in ("one", "two"):
        home = tmp_path / name
        automl("run", str(study), "--home", str(home))
        trials = automl("leaderboard", "digits", "--home", str(home))["trials"]
        for trial in trials:
            for measured in MEASURED:
                del trial[measured]
        published = (home / "models/digits/1/model.onnx").read_bytes()
        found.append((trials, hashlib.sha256(published).hexdigest()))

    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]
    assert len(found[0][0]) == 6
    assert any(trial["parent"] is not None for trial in found[0][0])
