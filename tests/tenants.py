"""Studies of every track, small enough for tests that run from file to champion."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from automl.tracks.image.decode import encode_png
from tests.digits import digits, write_digits

ROOT = Path(__file__).parents[1]
INSTALLED = ROOT / "tests" / "installed"
COLUMNS = ("width", "height", "depth")


@dataclass(frozen=True)
class Tenant:
    """A track and a study of it.

    Attributes:
        name: of the study.
        task: of its track.
        sections: of the study file besides name, task and source.
        write_source: writes the data into a folder and returns the file's name.
        write_inputs: writes an input for `automl predict` into a folder and returns its path.
        inputs: how many rows that input has.
        environment: what its workers are to find.
        metrics: that a published version has.
        outputs: of its file.
        members: whose predictions its file blends.
        is_maximised: whether more of its objective is better.
    """

    name: str
    task: str
    sections: Mapping[str, Any]
    write_source: Callable[[Path], str]
    write_inputs: Callable[[Path], Path]
    inputs: int
    environment: Mapping[str, str]
    metrics: frozenset[str]
    outputs: frozenset[str]
    members: int
    is_maximised: bool

    def write_study(self, folder: Path) -> Path:
        """Write the data and the study file into a folder, and return the latter's path."""
        source = {"source": self.write_source(folder)}
        sections = {**self.sections, "data": {**source, **self.sections.get("data", {})}}
        path = folder / "study.yaml"
        path.write_text(yaml.safe_dump({"name": self.name, "task": self.task, **sections}))
        return path

    def process_environment(self, home: Path) -> dict[str, str]:
        """Return that of a process which finds a home, and the tracks of the tests."""
        clean = {key: value for key, value in os.environ.items() if "AUTOML" not in key}
        paths = [str(INSTALLED), str(ROOT), *filter(None, [clean.get("PYTHONPATH", "")])]
        clean["PYTHONPATH"] = os.pathsep.join(paths)
        return {**clean, "AUTOML_HOME": str(home), **self.environment}


def _write_digits(folder: Path) -> str:
    return write_digits(folder / "rows.npz", 300).name


def _write_digit(folder: Path) -> Path:
    path = folder / "digit.png"
    path.write_bytes(encode_png(np.repeat(digits()[0][0][..., None], 3, axis=-1)))
    return path


def _write_table(path: Path, rows: int, *, has_label: bool) -> Path:
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, len(COLUMNS)))
    y = x @ [2.0, -1.0, 0.5] + np.sin(3 * x[:, 0]) + rng.normal(scale=0.1, size=rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "price"] if has_label else COLUMNS)
        writer.writerows(np.column_stack([x, y]) if has_label else x)
    return path


IMAGES = Tenant(
    name="digits",
    task="image_classification",
    sections={
        "search": {"time_limit": "10m", "max_trials": 3, "workers": 2},
        "final_fit": {"time_limit": "5m"},
    },
    write_source=_write_digits,
    write_inputs=_write_digit,
    inputs=1,
    environment={},
    metrics=frozenset({"accuracy", "log_loss", "balanced_accuracy", "macro_f1"}),
    outputs=frozenset({"label", "probabilities"}),
    members=1,
    is_maximised=True,
)
NUMBERS = Tenant(
    name="prices",
    task="numeric_regression",
    sections={
        "data": {"label": "price", "test_fraction": 0.3},
        "search": {"time_limit": "10m", "max_trials": 6, "workers": 2},
        "final_fit": {"time_limit": "5m", "ensemble": 2},
    },
    write_source=lambda folder: _write_table(folder / "rows.csv", 400, has_label=True).name,
    write_inputs=lambda folder: _write_table(folder / "new.csv", 4, has_label=False),
    inputs=4,
    environment={"NUMERIC_FOLD_S": "0.5"},
    metrics=frozenset({"rmse", "mae", "r2"}),
    outputs=frozenset({"value"}),
    members=2,
    is_maximised=False,
)
TENANTS = (IMAGES, NUMBERS)
