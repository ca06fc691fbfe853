"""Ranking of wrong labels, judged on flipped ones: `make bench-label_errors`.

One label in twenty is flipped, at random or to the class that it is confused with most. A cheap
model predicts each row out of sample: logistic regression on small pixels and on histograms of
gradients. Of as many rows as were flipped, taken from the top of the ranking, a share is right; of
twice as many, a share of the flips is among them. It prints a table of three rankings and writes it
to `benchmarks/out/label_errors.json`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from automl.data.label_errors import find_label_errors
from benchmarks.shared_data import shared_dataset

OUT = Path(__file__).parent / "out" / "label_errors.json"
FLIPPED, FOLDS, SIDE, CELL, ANGLES, COMPONENTS = 0.05, 4, 64, 8, 9, 120
Scores = NDArray[np.float64]


class Case(NamedTuple):
    """Labels, some of which were flipped.

    Attributes:
        given: index of the class that each row is labelled with [n].
        is_flipped: whether it is wrong [n].
        values: probabilities out of sample [n, K].
    """

    given: NDArray[np.int64]
    is_flipped: NDArray[np.bool_]
    values: NDArray[np.float64]


def load(name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return features [n, F] and labels [n] of a dataset."""
    if name == "digits":
        x, y = load_digits(return_X_y=True)
        return StandardScaler().fit_transform(x), y
    if name == "fashion_mnist_small":
        with np.load(shared_dataset(name) / "data.npz") as arrays:
            images = np.repeat(arrays["x_train"][..., None], 3, axis=3)
            return features(_pad(images)), arrays["y_train"].astype(np.int64)
    folder = shared_dataset(name)
    with (folder / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = np.stack([_read(folder / "images" / row["File Name"]) for row in rows])
    classes = sorted({row["Label"] for row in rows})
    return features(images), np.array([classes.index(row["Label"]) for row in rows])


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE)), np.uint8)


def _pad(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    most = -(-images.shape[1] // CELL) * CELL - images.shape[1]
    return np.pad(
        images, ((0, 0), (most // 2, most - most // 2), (most // 2, most - most // 2), (0, 0))
    )


def features(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return pixels of cells, and histograms of the gradients' angles in them."""
    n, side = images.shape[:2]
    cells = side // CELL
    grey = images.mean(axis=3)
    down, right = np.gradient(grey, axis=1), np.gradient(grey, axis=2)
    strength = np.hypot(down, right)
    angle = (np.arctan2(down, right) % np.pi / np.pi * ANGLES).astype(int) % ANGLES
    histogram = np.stack(
        [
            np.where(angle == one, strength, 0.0)
            .reshape(n, cells, CELL, cells, CELL)
            .sum(axis=(2, 4))
            for one in range(ANGLES)
        ],
        axis=3,
    )
    histogram /= np.linalg.norm(histogram, axis=3, keepdims=True) + 50
    small = images.reshape(n, cells, CELL, cells, CELL, 3).mean(axis=(2, 4)) / 255
    found = StandardScaler().fit_transform(
        np.hstack([histogram.reshape(n, -1), small.reshape(n, -1)])
    )
    reduced: NDArray[np.float64] = PCA(COMPONENTS, random_state=0).fit_transform(found)
    return reduced


def out_of_sample(x: NDArray[np.float64], y: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return the probabilities of classes by models that did not see the row [n, K]."""
    values = np.zeros((len(y), int(y.max()) + 1))
    for learned, judged in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        model = LogisticRegression(C=0.1, max_iter=120).fit(x[learned], y[learned])
        values[np.ix_(judged, model.classes_)] = model.predict_proba(x[judged])
    return values


def cases(name: str, kind: str, seeds: int) -> Iterator[Case]:
    """Yield a dataset with flipped labels, once for each seed."""
    x, y = load(name)
    confused = most_confused(x, y)
    for seed in range(seeds):
        given = flipped(y, kind, confused, seed)
        yield Case(given, given != y, out_of_sample(x, given, seed))


def flipped(
    y: NDArray[np.int64], kind: str, confused: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Return labels of which one in twenty is wrong.

    Args:
        y: the right ones [n].
        kind: `random`, or `confusable` for those of the class that each is confused with most.
        confused: that class, by class [K].
        seed: decides which ones.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(y), round(FLIPPED * len(y)), replace=False)
    given = y.copy()
    others = (y[chosen] + rng.integers(1, len(confused), len(chosen))) % len(confused)
    given[chosen] = others if kind == "random" else confused[y[chosen]]
    return given


def most_confused(x: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class that a cheap model confuses with each class most [K]."""
    values = out_of_sample(x, y, 0)
    counts = np.zeros((values.shape[1],) * 2)
    np.add.at(counts, (y, values.argmax(axis=1)), 1)
    counts += counts.T
    np.fill_diagonal(counts, -1)
    confused: NDArray[np.int64] = counts.argmax(axis=1)
    return confused


def _own(case: Case) -> Scores:
    own: Scores = case.values[np.arange(len(case.given)), case.given]
    return own


def _margin(case: Case) -> Scores:
    others = case.values.copy()
    others[np.arange(len(case.given)), case.given] = -1
    margin: Scores = _own(case) - others.max(axis=1)
    return margin


RANKINGS: Mapping[str, Callable[[Case], NDArray[np.int64]]] = {
    "probability of the label": lambda case: np.argsort(_own(case), kind="stable"),
    "margin": lambda case: np.argsort(_margin(case), kind="stable"),
    "this platform's": lambda case: find_label_errors(case.values, case.given).order,
}


def measure(case: Case) -> dict[str, list[float]]:
    """Return precision among as many rows as were flipped, and recall among twice as many."""
    flips = int(case.is_flipped.sum())
    found = {}
    for name, ranking in RANKINGS.items():
        found[name] = hits(case.is_flipped, ranking(case))
    shown = find_label_errors(case.values, case.given).shown()
    found["shown"] = [len(shown) / flips, float(case.is_flipped[shown].sum() / flips)]
    return found


def hits(is_flipped: NDArray[np.bool_], order: NDArray[np.int64]) -> list[float]:
    """Return precision among as many rows as were flipped, and recall among twice as many."""
    flips, found = int(is_flipped.sum()), is_flipped[order]
    return [float(found[:flips].mean()), float(found[: 2 * flips].sum() / flips)]


def main(arguments: Sequence[str]) -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    names = ["digits", "fashion_mnist_small", "plant_seedlings", "clothing"]
    parser.add_argument("--datasets", nargs="+", choices=names, default=names)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    lines = []
    print("| dataset | flips | " + " | ".join([*RANKINGS, "rows shown / flips, recall"]) + " |")
    print("| --- " * (3 + len(RANKINGS)) + "|")
    for name in options.datasets:
        for kind in ("random", "confusable"):
            each = [measure(case) for case in cases(name, kind, options.seeds)]
            mean = {key: np.mean([one[key] for one in each], axis=0).tolist() for key in each[0]}
            lines.append({"dataset": name, "flips": kind, **mean})
            figures = " | ".join("{:.2f}, {:.2f}".format(*pair) for pair in mean.values())
            print(f"| {name} | {kind} | {figures} |", flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
