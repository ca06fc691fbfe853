"""Whether a search is worth its time: `make bench-accuracy`.

The platform searches for 5 minutes and fits for 2, on 2 cores. Beside it learners that do not
search are trained on the same rows for the same 7 minutes: fixed recipes, a seed of the platform,
features of a pretrained network. All are measured on the same test rows, the platform by its
published file. It prints a table and writes it to `benchmarks/out/accuracy.json`.

It can be interrupted at any time: finished units are kept as one JSON line each in
`benchmarks/out/accuracy.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.json_lines import append_line, read_lines
from benchmarks.orphans import end_with_parent

OUT = Path(__file__).parent / "out"
DATASETS = ("digits", "fashion_mnist_small", "cifar10_small", "plant_seedlings", "clothing")
PLATFORM = "platform"
ARMS = (
    PLATFORM, "random-search", "default-seed", "small-resnet", "airbench", "frozen-features",
)  # fmt: skip
MINUTES = 7.0
CORES = 2
_SEARCH_SHARE = 5 / 7


@dataclass(frozen=True, slots=True)
class Unit:
    """One arm on one dataset.

    Attributes:
        dataset: one of `DATASETS`.
        arm: one of `ARMS`.
        minutes: wall clock.
        seed: of everything random.
        flip_tests: whether recipes may predict from an image and its mirror image.
    """

    dataset: str
    arm: str
    minutes: float
    seed: int
    flip_tests: bool

    @property
    def key(self) -> dict[str, Any]:
        """What tells its line from others."""
        return {
            "dataset": self.dataset, "arm": self.arm, "minutes": self.minutes, "seed": self.seed,
            "flip_tests": self.flip_tests,
        }  # fmt: skip


def run_missing(units: Sequence[Unit], out: Path) -> list[dict[str, Any]]:
    """Return the lines of all units that can be run; those that the file lacks are added to it.

    Args:
        units: the arms and datasets.
        out: where file and homes are.
    """
    log = out / "accuracy.jsonl"
    rows = read_lines(log)
    found = []
    for count, unit in enumerate(units, start=1):
        row = next((row for row in rows if unit.key.items() <= row.items()), None)
        if row is None:
            row = _run_alone(unit, out)
            if "skipped" in row:
                print(f"{unit.dataset}, {unit.arm}: skipped, {row['skipped']}", file=sys.stderr)
                continue
            append_line(log, row)
        print(f"{count}/{len(units)} {_brief(row)}", file=sys.stderr, flush=True)
        found.append(row)
    return found


def _run_alone(unit: Unit, out: Path) -> dict[str, Any]:
    """Run a unit in a fresh process, which nothing before it has slowed down or warmed up."""
    # Waiting threads sleep instead of spinning, as in the command line; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run_unit, unit, out).result()


def run_unit(unit: Unit, out: Path) -> dict[str, Any]:
    """Return the line of a unit, or why it cannot be run as `skipped`."""
    end_with_parent()

    from benchmarks import arms, rows

    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    seconds = 60 * unit.minutes
    terms = arms.Terms(
        search_s=_SEARCH_SHARE * seconds,
        final_fit_s=(1 - _SEARCH_SHARE) * seconds,
        threads=len(cores),
        seed=unit.seed,
        flip_tests=unit.flip_tests,
    )
    folder = out / "accuracy"
    dataset = rows.load(unit.dataset, folder / "rows")
    name = f"{unit.dataset}-{unit.arm}-{unit.minutes:g}-{unit.seed}"
    try:
        answer = arms.ARMS[unit.arm](dataset, terms, folder / name)
    except arms.ArmUnavailableError as error:
        return {**unit.key, "skipped": str(error)}
    return {
        **unit.key,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(cores),
        "python": platform.python_version(),
        "n": len(answer.hits),
        "correct": int(answer.hits.sum()),
        "hits": "".join("1" if hit else "0" for hit in answer.hits.tolist()),
        "facts": dict(answer.facts),
    }


def _brief(row: Mapping[str, Any]) -> str:
    return f"{row['dataset']}, {row['arm']}: {100 * row['correct'] / row['n']:.2f} %"


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one learner is on the same rows, in per cent points.

    Attributes:
        mean: the difference of the accuracies.
        error: its standard error, paired by row.
    """

    mean: float
    error: float

    @classmethod
    def of(cls, ours: str, other: str) -> Difference:
        """Return the difference of two rows of hits, "1" or "0" per test row.

        Raises:
            ValueError: they are not of the same rows.
        """
        if len(ours) != len(other):
            raise ValueError(f"{len(ours)} and {len(other)} test rows cannot be paired.")
        gains = np.array([int(a) - int(b) for a, b in zip(ours, other, strict=True)])
        return cls(100 * float(gains.mean()), 100 * float(gains.std(ddof=1)) / len(gains) ** 0.5)

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.error:.2f}"


def accuracy_cell(row: Mapping[str, Any]) -> str:
    """Return the accuracy in per cent with the 95 % interval of Wilson (1927)."""
    interval = binomtest(row["correct"], row["n"]).proportion_ci(0.95, method="wilson")
    value = 100 * row["correct"] / row["n"]
    return f"{value:.2f} [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def report(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table, in Markdown.

    The last line has the mean of each arm over the datasets that it was run on, and how many those
    are if they are not all.
    """
    names = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    datasets = [name for name in DATASETS if any(row["dataset"] == name for row in rows)]
    found = {(row["dataset"], row["arm"]): row for row in rows}
    lines = [
        "| dataset | test rows | " + " | ".join(names) + f" | {PLATFORM} minus best arm |",
        "|" + " --- |" * (len(names) + 3),
    ]
    for dataset in datasets:
        mine = {arm: found[dataset, arm] for arm in names if (dataset, arm) in found}
        cells = [accuracy_cell(mine[arm]) if arm in mine else "" for arm in names]
        count = next(iter(mine.values()))["n"]
        lines.append(f"| {dataset} | {count} | " + " | ".join([*cells, _lead(mine)]) + " |")
    means = []
    for arm in names:
        values = [100 * row["correct"] / row["n"] for row in rows if row["arm"] == arm]
        part = "" if len(values) == len(datasets) else f" ({len(values)} of {len(datasets)})"
        means.append(f"{np.mean(values):.2f}{part}")
    lines.append("| mean | | " + " | ".join(means) + " | |")
    return lines


def _lead(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the platform's difference to the best of the other arms, with its name."""
    others = {arm: row for arm, row in rows.items() if arm != PLATFORM}
    if PLATFORM not in rows or not others:
        return ""
    best = max(others, key=lambda arm: others[arm]["correct"])
    return f"{Difference.of(rows[PLATFORM]['hits'], others[best]['hits'])} ({best})"


def main(arguments: Sequence[str]) -> None:
    """Run what is missing, print the table and write it to `accuracy.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of search and final fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-flip-tests", action="store_true", help="one look at each test image")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    units = [
        Unit(dataset, arm, options.minutes, options.seed, not options.no_flip_tests)
        for dataset in options.datasets
        for arm in options.arms
    ]
    rows = run_missing(units, options.out)
    print("\n".join(report(rows)))
    document = {"at": datetime.now(UTC).isoformat(), "rows": rows}
    (options.out / "accuracy.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
