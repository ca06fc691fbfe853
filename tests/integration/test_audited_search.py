"""A search on data with wrong labels, by the command line, and the audit of its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from automl.storage.file import FileObjectStore
from automl.tracks.image.audit import audited_rows
from tests.commands import automl, document_of
from tests.digits import digits

ROWS, CLASSES, FLIPPED = 1080, 6, 54


def test_wrong_labels_are_found_among_training_rows_too(tmp_path: Path) -> None:
    x, right = digits(CLASSES)
    y, rng = right[:ROWS].copy(), np.random.default_rng(0)
    chosen = rng.choice(ROWS, FLIPPED, replace=False)
    y[chosen] = (y[chosen] + rng.integers(1, CLASSES, FLIPPED)) % CLASSES
    np.savez(tmp_path / "rows.npz", allow_pickle=False, x=x[:ROWS], y=y)
    study = {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": "rows.npz"},
        "search": {"time_limit": "10m", "max_trials": 3, "workers": 1},
        "final_fit": {"retrain": False},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    home = ("--home", str(tmp_path / "home"), "--json")

    document_of(automl("run", str(tmp_path / "study.yaml"), *home))
    found = document_of(automl("data", "issues", "digits", *home))

    rows = audited_rows(FileObjectStore(tmp_path / "home"), "digits", found["snapshot"], ())
    training = {path for path, part in zip(rows.paths, rows.parts, strict=True) if part == "train"}
    wrong = training & {f"x[{row}]" for row in chosen}
    told = [
        issue
        for issue in found["issues"]
        if issue["kind"] == "label_error" and issue["part"] == "train"
    ]
    assert found["judged_by"]["cross_fit"] == len(training)
    paths, n = [issue["path"] for issue in told], len(wrong)  # the most suspicious come first
    assert len(wrong & set(paths[:n])) >= 0.7 * n
    assert len(wrong & set(paths[: 2 * n])) >= 0.7 * n
    likely = {issue["path"] for issue in told if issue["note"].startswith("likely")}
    assert len(wrong & likely) >= 0.7 * len(likely) > 0.25 * n
