"""The platform as its user meets it: `automl run` on a study file, and the file it publishes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import yaml

from automl.domain.specification import Strategy
from automl.errors import ConfigError
from automl.onnx.model import OnnxModel
from automl.steps.study_file import study_spec
from benchmarks.orphans import end_with_parent
from benchmarks.rows import Dataset, Rows

_TEST_FRACTION = 0.02  # where the study cannot name its test rows, it gives up some others


def run_platform(
    dataset: Dataset,
    folder: Path,
    strategy: Strategy,
    seconds: tuple[float, float],
    seed: int,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Run a study of its own from nothing, and measure the published file.

    Args:
        dataset: the rows.
        folder: of the study file and its home; what a broken run left there is removed.
        strategy: of the search.
        seconds: of the search and of the final fit.
        seed: of the study.

    Returns:
        Which test rows are right, bool [n], and facts for JSON.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    document = study_document(dataset, strategy, seconds, seed)
    study = folder / "study.yaml"
    study.write_text(yaml.safe_dump(document, sort_keys=False))
    started_s = time.monotonic()
    result = automl_run(study, folder / "home")
    taken_s = time.monotonic() - started_s
    model = OnnxModel(_path_of(result["onnx"]), threads=len(os.sched_getaffinity(0)))
    return predict_labels(model, dataset.test) == np.array(dataset.test.labels), {
        "run_seconds": round(taken_s, 1),
        "winner": result["winner"],
        "test_rows": "test_source" if "test_source" in document["data"] else "test_fraction",
    }


def study_document(
    dataset: Dataset, strategy: Strategy, seconds: tuple[float, float], seed: int
) -> dict[str, Any]:
    """Return a study file's document: the dataset's own test rows, all else as it is by default.

    A version that cannot take test rows by name publishes a study only if it holds some out; it
    gives up as few as it can then.
    """
    search_s, final_fit_s = (f"{max(1, round(value))}s" for value in seconds)
    named = {**dataset.data, "test_fraction": 0.0}
    document: dict[str, Any] = {
        "name": dataset.name.replace("_", "-"),
        "task": "image_classification",
        "data": named,
        "search": {"strategy": strategy.value, "time_limit": search_s, "seed": seed},
        "final_fit": {"time_limit": final_fit_s},
        "schedule": None,
    }
    try:
        study_spec(document)
    except ConfigError as error:
        if {problem.path for problem in error.problems} != {"data.test_source"}:
            raise
        unnamed = {key: value for key, value in dataset.data.items() if key != "test_source"}
        document["data"] = {**unnamed, "test_fraction": _TEST_FRACTION}
    return document


def predict_labels(model: OnnxModel, rows: Rows) -> np.ndarray:
    """Return the predicted label of each row, images of one shape together."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(rows.pixels):
        by_shape.setdefault(image.shape, []).append(index)
    predicted = np.empty(len(rows.pixels), dtype=object)
    for places in by_shape.values():
        for start in range(0, len(places), 256):
            chosen = places[start : start + 256]
            pixels = np.stack([rows.pixels[index] for index in chosen])
            predicted[chosen] = model.predict({"image": pixels}).chosen
    return predicted


def automl_run(study: Path, home: Path) -> Mapping[str, Any]:
    """Run a study file, and return the document of `automl run --json`.

    Raises:
        RuntimeError: it ended with an error.
    """
    command: Sequence[str] = [
        sys.executable, "-m", "automl.cli", "run", str(study), "--home", str(home), "--json",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=end_with_parent
    )
    if done.returncode:
        raise RuntimeError(
            f"automl run {study} ended with {done.returncode}: {done.stdout}{done.stderr[-2000:]}"
        )
    document: Mapping[str, Any] = json.loads(done.stdout)
    return document


def _path_of(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri)
