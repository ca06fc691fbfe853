"""The audit of wrong labels as its user meets it: `make bench-label_audit`.

One label in twenty of all rows of a dataset is flipped, as in `benchmarks.label_errors`; a study
searches on them by `automl run`, and `automl.doctor.data_issues` audits its data. All rows that are
not sealed are ranked together: held-out ones by the mean of the trials' predictions, training rows
by the cross-fit of the winner. It prints a table, and writes it to `benchmarks/out/`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from automl.data.issues import UNKNOWN, IssueKind
from automl.data.label_errors import find_label_errors, together
from automl.doctor.data_issues import Audit, audit_data
from automl.domain.layout import StudyKeys
from automl.domain.settings import Settings
from automl.runs.out_of_sample import cross_fitted, mean_predictions
from automl.storage.open import open_home
from automl.storage.study_log import StudyRecord
from automl.tracks.image.audit import audited_rows
from benchmarks.datasets import data_section
from benchmarks.label_errors import flipped, hits, load, most_confused
from benchmarks.platform_arm import automl_run

OUT = Path(__file__).parent / "out" / "label_audit.json"
KINDS = ("random", "confusable")
NAMES = ("digits", "fashion_mnist_small", "plant_seedlings", "clothing")
COLUMNS = (
    "held-out rows: number, accuracy", "training rows: number, accuracy",
    "probability of the label", "odds, thresholds together", "this platform's odds",
    "held-out alone", "training alone",
    "rows shown / flips, recall",
)  # fmt: skip


class Judged(NamedTuple):
    """Rows that one kind of predictions judges.

    Attributes:
        values: probabilities out of sample [n, K].
        given: index of the class that each row is labelled with [n].
        is_flipped: whether that is wrong [n].
        paths: of the rows.
    """

    values: NDArray[np.float64]
    given: NDArray[np.int64]
    is_flipped: NDArray[np.bool_]
    paths: list[str]

    @property
    def accuracy(self) -> float:
        """Share of rows whose label was not flipped that are predicted to have it."""
        right = self.values.argmax(axis=1) == self.given
        return float(right[~self.is_flipped].mean())


def mislabelled(name: str, kind: str, seed: int, folder: Path) -> tuple[dict[str, Any], set[str]]:
    """Write a dataset with flipped labels.

    Returns:
        The `data` section of its study, and the paths of the rows whose labels are wrong.
    """
    data = data_section(name, folder)
    confused = most_confused(*load(name))
    source = Path(data["source"])
    target = folder / f"flipped{source.suffix}"
    if source.suffix == ".npz":
        with np.load(source) as arrays:
            x, y = arrays["x"], arrays["y"].astype(np.int64)
        given = flipped(y, kind, confused, seed)
        np.savez(target, allow_pickle=False, x=x, y=given)
        paths = [f"x[{row}]" for row in range(len(y))]
    else:
        with source.open(newline="") as file:
            rows = list(csv.DictReader(file))
        classes = sorted({row["Label"] for row in rows})
        y = np.array([classes.index(row["Label"]) for row in rows])
        given = flipped(y, kind, confused, seed)
        with target.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["File Name", "Label"])
            named = zip(rows, given.tolist(), strict=True)
            writer.writerows([row["File Name"], classes[index]] for row, index in named)
        paths = [row["File Name"] for row in rows]
    wrong = {path for path, is_wrong in zip(paths, given != y, strict=True) if is_wrong}
    return {**data, "source": str(target)}, wrong


def judged_rows(home: Path, study: str, wrong: set[str]) -> list[Judged]:
    """Return what the audit of a study judges: held-out rows, and training rows."""
    opened = open_home(Settings(str(home)))
    record = StudyRecord(opened.study_log(study)).refresh()
    run = record.runs[-1]
    rows = audited_rows(opened.store, study, run.snapshot, {"gate", "report"})
    classes = len(rows.classes)
    runs = record.comparable_runs(run)
    found = [
        mean_predictions(opened.store, record.comparable(run), classes).means,
        cross_fitted(opened.store, StudyKeys(study), runs, classes).values,
    ]
    judged = []
    for values in found:
        places = [
            place
            for place, digest in enumerate(rows.digests)
            if digest in values and rows.labels[place] != UNKNOWN
        ]
        paths = [rows.paths[place] for place in places]
        judged.append(
            Judged(
                np.array([values[rows.digests[place]] for place in places]).reshape(-1, classes),
                rows.labels[places],
                np.array([path in wrong for path in paths], np.bool_),
                paths,
            )
        )
    return judged


def measure(judged: Sequence[Judged], audit: Audit) -> dict[str, list[float]]:
    """Return pairs of figures by the name of their column."""
    values, given, is_flipped = (
        np.concatenate([one[field] for one in judged]) for field in range(3)
    )
    own = values[np.arange(len(given)), given]
    each = [find_label_errors(one.values, one.given) for one in judged]
    shown = [issue.path for issue in audit.found.issues if issue.kind is IssueKind.LABEL_ERROR]
    wrong = {path for one in judged for path in np.array(one.paths)[one.is_flipped].tolist()}
    flips = len(wrong)
    figures = [
        *([len(one.given), one.accuracy] for one in judged),
        hits(is_flipped, np.argsort(own, kind="stable")),
        hits(is_flipped, find_label_errors(values, given).order),
        hits(is_flipped, together(each).order),
        *(hits(one.is_flipped, found.order) for one, found in zip(judged, each, strict=True)),
        [len(shown) / flips, len(wrong & set(shown)) / flips],
    ]
    return dict(zip(COLUMNS, figures, strict=True))


def audited(name: str, kind: str, seed: int, search: Mapping[str, Any]) -> dict[str, list[float]]:
    """Search on a dataset with flipped labels, audit it, and return the figures.

    Args:
        name: of the dataset.
        kind: of the flips.
        seed: of the flips and of the search.
        search: settings of the search, besides.
    """
    with tempfile.TemporaryDirectory() as place:
        folder, study = Path(place), name.replace("_", "-")
        data, wrong = mislabelled(name, kind, seed, folder)
        document = {
            "name": study,
            "task": "image_classification",
            "data": data,
            "search": {"workers": 2, "seed": seed, **search},
            "final_fit": {"retrain": False},
            "schedule": None,
        }
        file = folder / "study.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        automl_run(file, folder / "home")
        audit = audit_data(Settings(str(folder / "home")), study)
        return measure(judged_rows(folder / "home", study, wrong), audit)


def main(arguments: Sequence[str]) -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--time-limit", default="3m", help="of each search")
    parser.add_argument("--parameters", type=int, help="most of a network; any number by default")
    parser.add_argument("--flips", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--datasets", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    lines = []
    print("| dataset | flips | seed | " + " | ".join(COLUMNS) + " |")
    print("| --- " * (3 + len(COLUMNS)) + "|")
    search: dict[str, Any] = {"time_limit": options.time_limit}
    if options.parameters is not None:
        search["limits"] = {"parameters": options.parameters}
    for name, kind, seed in product(options.datasets, options.flips, range(options.seeds)):
        found = audited(name, kind, seed, search)
        lines.append({"dataset": name, "flips": kind, "seed": seed, **found})
        figures = " | ".join("{:.4g}, {:.2f}".format(*pair) for pair in found.values())
        print(f"| {name} | {kind} | {seed} | {figures} |", flush=True)
        options.out.parent.mkdir(exist_ok=True)
        options.out.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
