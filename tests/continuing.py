"""A small study that has published a version, and has more images since then."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.datasets import load_digits

from automl.domain.settings import Settings
from automl.domain.study import Run, Study
from automl.runs.context import StepContext
from automl.steps.dispatch import run_named_step
from automl.steps.study_file import load_study_file
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from automl.tracks.image.decode import encode_png
from tests.commands import automl, document_of

CLASSES, OLD_ROWS, ALL_ROWS = 3, 150, 500
WEIGHTS = "studies/digits/runs/{}/weights.safetensors"


@dataclass(frozen=True)
class Place:
    """A home, and the folder of the study that is kept there."""

    home: Path
    source: Path

    @property
    def study(self) -> Study:
        """The study as its log tells it now."""
        return StudyRecord(open_home(Settings(str(self.home))).study_log("digits")).refresh()

    @property
    def versions(self) -> list[int]:
        """The numbers of the published versions."""
        return sorted(int(path.name) for path in (self.home / "models/digits").glob("[0-9]*"))

    def automl(self, *arguments: str) -> dict[str, Any]:
        """Run a command that succeeds, and return its document."""
        return document_of(automl(*arguments, "--home", str(self.home), "--json"))

    def copy(self, folder: Path) -> Place:
        """Return a copy of both under `folder`."""
        return Place(
            Path(shutil.copytree(self.home, folder / "home")),
            Path(shutil.copytree(self.source, folder / "source")),
        )


def write_images(folder: Path, rows: range, *, on_white: bool) -> list[tuple[str, str]]:
    """Write digits, white on black or reversed, and return a row of the manifest for each."""
    sample = load_digits(n_class=CLASSES)
    found = []
    for number in rows:
        scan = np.rint(sample.images[number] * (255 / 16))
        scan = 255 - scan if on_white else scan
        pixels = np.repeat(scan.astype(np.uint8)[..., None], 3, axis=2)
        (folder / f"{number:04d}.png").write_bytes(encode_png(pixels))
        found.append((f"{number:04d}.png", str(sample.target[number])))
    return found


def write_study(
    place: Path, rows: Sequence[tuple[str, str]], *, seed: int = 0, **sections: Any
) -> Path:
    """Write the manifest and the study file, and return the latter."""
    with (place / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("File Name", "Label"), *rows])
    document = {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": "train.csv", **sections.pop("data", {})},
        "search": {
            "time_limit": "120s", "max_trials": 2, "workers": 2, "seed": seed,
            **sections.pop("search", {}),
        },
        **sections,
    }  # fmt: skip
    (place / "study.yaml").write_text(yaml.safe_dump(document))
    return place / "study.yaml"


def manifest_rows(place: Place) -> list[tuple[str, str]]:
    """Return path and label of each row of the manifest as it is now."""
    with (place.source / "train.csv").open(newline="") as file:
        return [(path, label) for path, label in list(csv.reader(file))[1:]]


def publish_and_grow(folder: Path) -> Place:
    """Return a study that has searched and published version 1; then images came of another kind.

    Version 1 cannot read them, so that a fit which goes on from it is better on every processor.
    """
    place = Place(folder / "home", folder / "source")
    place.source.mkdir()
    rows = write_images(place.source, range(OLD_ROWS), on_white=False)
    study = write_study(place.source, rows, final_fit={"retrain": False})
    assert place.automl("run", str(study))["version"] == 1
    rows += write_images(place.source, range(OLD_ROWS, ALL_ROWS), on_white=True)
    write_study(place.source, rows)
    return place


def runs(place: Place) -> tuple[Run, ...]:
    """Return the runs of the study, oldest first."""
    return place.study.runs


def context_of(place: Place) -> StepContext:
    """Return the context of another run of the study as its file is now."""
    spec = load_study_file(place.source / "study.yaml")
    context = StepContext.open(Settings(str(place.home)), spec, "next", "test")
    context.record.refresh()
    return context


def open_run(place: Place) -> dict[str, Any]:
    """Prepare and open the run `next`, and return the payload of its further steps."""
    payload: dict[str, Any] = {
        "study_file": str(place.source / "study.yaml"),
        "run": "next",
        "worker": 0,
        "origin": "airflow:automl_digits",
    }
    prepared = run_named_step("prepare", payload)
    assert isinstance(prepared, dict)
    payload["snapshot"] = prepared["snapshot"]
    assert run_named_step("open_run", payload) == [0]
    return payload
