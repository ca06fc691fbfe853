"""Handwritten digits of 8 x 8 pixels, and small studies of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from automl.domain.specification import StudySpec
from automl.runs.context import StepContext
from automl.steps.study_file import study_spec
from automl.tracks.track import track_of


def digits(classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 8, 8) uint8 and labels (n,) of the first classes."""
    sample = load_digits(n_class=classes)
    return np.rint(np.asarray(sample.images) * (255 / 16)).astype(np.uint8), sample.target


def write_digits(path: Path, rows: int, classes: int = 10) -> Path:
    """Write the first digits as a source of so many rows, and return its path."""
    x, y = digits(classes)
    np.savez(path, allow_pickle=False, x=x[:rows], y=y[:rows])
    return path


def study_of_digits(folder: Path, rows: int = 300, **sections: object) -> StudySpec:
    """Write so many digits below `folder`, and return a study of them.

    Args:
        folder: exists.
        rows: of the source.
        sections: of the specification, in place of those that ask for a short run of two trials.
    """
    document: dict[str, Any] = {
        "name": "digits",
        "task": "image_classification",
        "data": {"source": str(write_digits(folder / "rows.npz", rows))},
        "search": {"time_limit": "60s", "max_trials": 2, "workers": 1},
        "final_fit": {"time_limit": "30s"},
    }
    return study_spec({**document, **sections})


def sizes_of(context: StepContext, snapshot: str) -> Mapping[str, int | str]:
    """Return what a search space depends on, the rows of the snapshot alone considered."""
    track = track_of(context.spec.task)
    return track.open(context.store, context.spec.name, snapshot).size_facts()
