"""What the strategies find when trials are really trained: `make bench-strategies`.

The platform's own steps search small datasets, all strategies with the same seeds, number of trials
and epochs. One process per search, one thread each. It prints a table and writes it to
`benchmarks/out/strategies.json`. It can be interrupted at any time: finished searches are kept as
one JSON line each in `benchmarks/out/strategies.jsonl`, begun ones go on from their study's log.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from automl.domain.study import Study
from automl.domain.trial import Outcome
from automl.tracks.image.facts import SPACE_VERSION
from benchmarks.json_lines import append_line, read_lines
from benchmarks.trained import Plan, prepare_home, run_search

OUT = Path(__file__).parent / "out"
BASELINE = "random"
STRATEGIES = (("bayesian", True), ("evolution", True), (BASELINE, True), ("bayesian", False))


@dataclass(frozen=True, slots=True)
class Task:
    """What is searched on one dataset.

    Attributes:
        seeds: how many, from 0.
        trials: of each search.
        epochs: of each trial.
    """

    seeds: int
    trials: int
    epochs: int


TASKS: Mapping[str, Task] = {
    "digits": Task(seeds=5, trials=20, epochs=8),
    "fashion_mnist_small": Task(seeds=3, trials=12, epochs=4),
}


def plans(datasets: Sequence[str]) -> list[Plan]:
    """Return all searches, those of one seed beside each other."""
    return [
        Plan(dataset, strategy, inherits, seed, TASKS[dataset].trials, TASKS[dataset].epochs)
        for dataset in datasets
        for seed in range(TASKS[dataset].seeds)
        for strategy, inherits in STRATEGIES
    ]


def run_missing(wanted: Sequence[Plan], out: Path, processes: int) -> list[dict[str, Any]]:
    """Return the results of all plans, in order; those that the log lacks are computed and added.

    Args:
        wanted: the searches.
        out: where log and homes are.
        processes: how many search.
    """
    log = out / "strategies.jsonl"
    found = {_key(row["plan"], row["version"]): row for row in read_lines(log)}
    missing = [plan for plan in wanted if _key(asdict(plan), SPACE_VERSION) not in found]
    print(f"{len(wanted)} searches, {len(missing)} to run", file=sys.stderr, flush=True)
    folder = out / f"strategies-{SPACE_VERSION}"
    for count, row in enumerate(_computed(missing, folder, processes), start=1):
        append_line(log, row)
        found[_key(row["plan"], row["version"])] = row
        print(f"{count}/{len(missing)} {row['plan']}", file=sys.stderr, flush=True)
    return [found[_key(asdict(plan), SPACE_VERSION)] for plan in wanted]


def _key(plan: Mapping[str, Any], version: int) -> str:
    return json.dumps([plan, version], sort_keys=True)


def _computed(missing: Sequence[Plan], folder: Path, processes: int) -> Iterator[dict[str, Any]]:
    prepared = set()
    for plan in missing:
        if (plan.dataset, plan.seed) not in prepared:
            prepare_home(plan, folder)
            prepared.add((plan.dataset, plan.seed))
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes when they start
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        futures = [pool.submit(_compute, plan, folder) for plan in missing]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _compute(plan: Plan, folder: Path) -> dict[str, Any]:
    study, test_accuracy = run_search(plan, folder)
    return {"plan": asdict(plan), "version": SPACE_VERSION, **_measured(study, test_accuracy)}


def _measured(study: Study, test_accuracy: float | None) -> dict[str, Any]:
    trials = sorted(study.trials, key=lambda trial: trial.finished_in)
    return {
        "test_accuracy": test_accuracy,
        "scores": [trial.measurement.score for trial in trials],
        "seconds": sum(trial.measurement.seconds for trial in trials),
        "epochs": sum(trial.measurement.epochs for trial in trials),
        "others": sum(trial.outcome is not Outcome.COMPLETED for trial in trials),
    }


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its standard error, in per cent points."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Return the estimate from one fraction per seed, at least two."""
        error = statistics.stdev(values) / len(values) ** 0.5
        return cls(100 * statistics.mean(values), 100 * error)

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"


def best_after(row: Mapping[str, Any], trials: int) -> float:
    """Return the best validation accuracy among the first trials; 0 if none has a score."""
    return max((score for score in row["scores"][:trials] if score is not None), default=0.0)


def report(dataset: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of one dataset's table, in Markdown."""
    last = TASKS[dataset].trials
    stops = (last // 4, last // 2, last)
    by_label: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_label.setdefault(Plan(**row["plan"]).label, []).append(row)
    lines = [
        f"| {dataset} | " + " | ".join(f"best @{stop}" for stop in stops)
        + f" | @{last} minus {BASELINE} | test accuracy | minus {BASELINE} | s per trial "
        "| stopped |",
        "|" + " --- |" * 9,
    ]  # fmt: skip
    base = by_label[BASELINE]
    for label, mine in by_label.items():
        cells = [str(Estimate.of([best_after(row, stop) for row in mine])) for stop in stops]
        pairs = list(zip(mine, base, strict=True))
        found = [best_after(row, last) - best_after(other, last) for row, other in pairs]
        tested = [row["test_accuracy"] - other["test_accuracy"] for row, other in pairs]
        trials = last * len(mine)
        cells += [
            "" if label == BASELINE else str(Estimate.of(found)),
            str(Estimate.of([row["test_accuracy"] for row in mine])),
            "" if label == BASELINE else str(Estimate.of(tested)),
            f"{sum(row['seconds'] for row in mine) / trials:.1f}",
            f"{sum(row['others'] for row in mine)} of {trials}",
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str]) -> None:
    """Run what is missing, print the tables and write them to `strategies.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    rows = run_missing(plans(options.datasets), options.out, options.processes)
    for dataset in options.datasets:
        print("\n".join(report(dataset, [r for r in rows if r["plan"]["dataset"] == dataset])))
    document = {"at": datetime.now(UTC).isoformat(), "rows": rows}
    (options.out / "strategies.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
