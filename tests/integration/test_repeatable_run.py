"""Two runs of the same study with the same seed are the same, as far as no time is measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from tests.commands import automl, document_of
from tests.digits import write_digits

ROWS = 250
MEASURED = ("latency_ms", "seconds")  # of a leaderboard's rows; they decide nothing


def write_study(folder: Path) -> Path:
    write_digits(folder / "rows.npz", ROWS)
    document = {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": "rows.npz"},
        "search": {"time_limit": "10m", "max_trials": 4, "workers": 1, "seed": 7},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    return folder / "study.yaml"


def test_two_runs_publish_the_same_bytes(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    found = []
    for name in ("one", "two"):
        home = tmp_path / name
        document_of(automl("run", str(study), "--home", str(home), "--json"))
        shown = automl("leaderboard", "digits", "--home", str(home), "--json")
        trials = document_of(shown)["trials"]
        for trial in trials:
            for measured in MEASURED:
                del trial[measured]
        published = (home / "models/digits/1/model.onnx").read_bytes()
        found.append((trials, hashlib.sha256(published).hexdigest()))

    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]
    assert len(found[0][0]) == 4
    assert any(trial["parent"] is not None for trial in found[0][0])
