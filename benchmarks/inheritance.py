"""What inherited weights are worth: `make bench-inheritance`.

Pairs of a trained parent and its child by random moves of the production space. The child trains
from its parent's weights for 3 epochs; the same network from scratch trains on the full schedule,
and what counts is the epoch in which it first has as small a validation loss. Both are trained
to the end as well and compared on test rows. It prints a table and writes it to
`benchmarks/out/inheritance.json`; finished pairs are kept as one JSON line each in
`benchmarks/out/inheritance.jsonl`, so that it can be interrupted at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.training import StopReason
from automl.errors import DivergedError
from automl.morphism.architecture import Architecture
from automl.morphism.moves import Move, inherit
from automl.tracks.image.space import NetworkMorphismSpace
from automl.tracks.image.spending import FULL_BUDGET
from automl.training.examples import Examples
from automl.training.inference import predict_probabilities
from automl.training.problem import FitHooks, FitProblem, FitResult, InitialWeights
from automl.training.symmetry import find_symmetries
from automl.training.trainer import fit
from benchmarks.accuracy import Difference
from benchmarks.fits import Place, fit_problem
from benchmarks.json_lines import append_line, read_lines
from benchmarks.rows import load

OUT = Path(__file__).parent / "out"
DATASETS = ("digits", "fashion_mnist_small")
PAIRS = 12  # of each dataset
SHORT_EPOCHS = 3
_MOST_ROWS = 3000  # of which a quarter decide, so that a training takes seconds
_DECIDING_SHARE = 0.25
_MOST_EARLIER_MOVES = 3  # mutations from a seed to a parent
_THREADS = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """One pair.

    Attributes:
        dataset: one of `DATASETS`.
        pair: its number; every other parent is a seed, the others are morphs of one.
        epochs: of a full training; the schedule is the production one of that length.
    """

    dataset: str
    pair: int
    epochs: int


@dataclass(frozen=True, slots=True)
class Data:
    """Rows to train on, to decide by and to compare on."""

    train: Examples
    selection: Examples
    test: Examples
    classes: int
    size: int


def epochs_to_reach(losses: Sequence[float], target: float) -> int | None:
    """Return after how many epochs the loss is first at the target or below, None if never."""
    return next((epoch for epoch, loss in enumerate(losses, start=1) if loss <= target), None)


def median_epochs(reached: Sequence[int | None]) -> float:
    """Return the median number of epochs, where never counts as infinitely many."""
    return statistics.median(float("inf") if count is None else count for count in reached)


def run_pair(plan: Plan, data: Data) -> dict[str, Any]:
    """Return the line of a pair; one with a training that diverged has `diverged` only."""
    try:
        return {"plan": asdict(plan), **_measured(plan, data)}
    except DivergedError as error:
        return {"plan": asdict(plan), "diverged": error.message}


def _measured(plan: Plan, data: Data) -> dict[str, Any]:
    rng = np.random.default_rng([DATASETS.index(plan.dataset), plan.pair])
    space = NetworkMorphismSpace(data.size, data.classes)
    parent = _parent(space, plan.pair, rng)
    child = space.mutate(_evaluated(parent), rng)
    trained = _train(parent, data, plan, None)
    assert trained.best_weights is not None
    moves = [Move.from_json(document) for document in child.moves]
    place, weights = inherit(_architecture(parent), trained.best_weights, moves)
    assert place.genotype() == child.genotype
    inherited = InitialWeights(weights)
    short = _train(child, data, replace(plan, epochs=SHORT_EPOCHS), inherited)
    full, scratch = (_train(child, data, plan, start) for start in (inherited, None))
    target = _losses(short)[-1]
    hits = [_hits(child, result, data) for result in (full, scratch)]
    difference = Difference.of(*hits)
    return {
        "parent": _architecture(parent).summary(),
        "child": _architecture(child).summary(),
        "moves": [document["kind"] for document in child.moves],
        "target": target,
        "parent_loss": min(_losses(trained)),
        "scratch_losses": _losses(scratch),
        "inherited_losses": _losses(full),
        "epochs": epochs_to_reach(_losses(scratch), target),
        "accuracy": [100 * text.count("1") / len(text) for text in hits],
        "difference": asdict(difference),
        "seconds": sum(result.seconds for result in (trained, short, full, scratch)),
    }


def _evaluated(candidate: Candidate) -> Candidate:
    """Return a parent as the space knows evaluated trials: its moves are not its child's."""
    return candidate.model_copy(update={"parent": 0, "moves": ()})


def _parent(space: NetworkMorphismSpace, pair: int, rng: np.random.Generator) -> Candidate:
    seeds = space.seeds()
    candidate = seeds[pair // 2 % len(seeds)]
    if pair % 2:
        for _ in range(int(rng.integers(1, _MOST_EARLIER_MOVES + 1))):
            candidate = space.mutate(candidate, rng)
    return candidate


def _data(name: str, folder: Path) -> Data:
    """Return the rows of a dataset; what has to be written for that is written to the folder."""
    from sklearn.model_selection import train_test_split

    dataset = load(name, folder)
    rows, test = dataset.examples()
    chosen = np.random.default_rng(0).permutation(len(rows))[:_MOST_ROWS]
    first, second = train_test_split(
        chosen, test_size=_DECIDING_SHARE, random_state=0, stratify=rows.labels[chosen]
    )
    train, selection = (Examples(rows.images[part], rows.labels[part]) for part in (first, second))
    return Data(train, selection, test, len(dataset.classes), dataset.size)


def _problem(candidate: Candidate, data: Data, plan: Plan) -> FitProblem:
    """Return the training of a trial as production has it, but that patience never ends it."""
    budget = replace(FULL_BUDGET, epochs=plan.epochs, patience=0)
    architecture = _architecture(candidate)
    problem = fit_problem(architecture, data.train, budget, (plan.pair,), Place(threads=_THREADS))
    return replace(
        problem,
        selection=data.selection,
        hyperparameters=candidate.hyperparameters,
        symmetries=find_symmetries(data.train, data.selection),
    )


def _train(candidate: Candidate, data: Data, plan: Plan, start: InitialWeights | None) -> FitResult:
    problem = replace(_problem(candidate, data, plan), is_warm=start is not None)
    result = fit(problem, start, FitHooks())
    if result.stopped is StopReason.DIVERGED:
        raise DivergedError(result.cause)
    return result


def _losses(result: FitResult) -> list[float]:
    losses = [epoch.selection_loss for epoch in result.curve]
    return [loss for loss in losses if loss is not None]


def _hits(candidate: Candidate, result: FitResult, data: Data) -> str:
    """Return which test rows are right, "1" or "0" each."""
    assert result.best_weights is not None
    problem = fit_problem(_architecture(candidate), data.train, FULL_BUDGET, (0,), Place())
    probabilities = predict_probabilities(
        problem.architecture, result.best_weights, problem.normalization, data.test.images, _THREADS
    )
    hits = probabilities.argmax(axis=1) == data.test.labels
    return "".join("1" if hit else "0" for hit in hits.tolist())


def _architecture(candidate: Candidate) -> Architecture:
    return Architecture.from_genotype(candidate.genotype)


def run_missing(plans: Sequence[Plan], out: Path, processes: int) -> list[dict[str, Any]]:
    """Return the lines of all pairs, in order; those that the file lacks are added to it."""
    log = out / "inheritance.jsonl"
    found = {_key(row["plan"]): row for row in read_lines(log)}
    missing = [plan for plan in plans if _key(asdict(plan)) not in found]
    print(f"{len(plans)} pairs, {len(missing)} to train", file=sys.stderr, flush=True)
    os.environ["OMP_NUM_THREADS"] = str(_THREADS)  # read by the processes when they start
    folder = out / "inheritance"
    data = {name: _data(name, folder) for name in {plan.dataset for plan in missing}}
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        futures = [pool.submit(run_pair, plan, data[plan.dataset]) for plan in missing]
        for count, future in enumerate(as_completed(futures), start=1):
            row = future.result()
            append_line(log, row)
            found[_key(row["plan"])] = row
            print(f"{count}/{len(missing)} {row['plan']}: {row.get('epochs')}", file=sys.stderr)
    finally:
        pool.shutdown(cancel_futures=True)
    return [found[_key(asdict(plan))] for plan in plans]


def _key(plan: Mapping[str, Any]) -> str:
    return json.dumps(plan, sort_keys=True)


def report(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table, in Markdown, its last one of all pairs, and who is missing."""
    diverged = [row["plan"] for row in rows if "diverged" in row]
    rows = [row for row in rows if "diverged" not in row]
    lines = [
        f"| dataset | pairs | epochs from scratch for {SHORT_EPOCHS} inherited, median [quartiles] "
        "| never | accuracy inherited | from scratch | difference |",
        "|" + " --- |" * 7,
    ]
    names = sorted({row["plan"]["dataset"] for row in rows})
    groups = {name: [row for row in rows if row["plan"]["dataset"] == name] for name in names}
    for name, group in {**groups, "all": list(rows)}.items():
        reached = [row["epochs"] for row in group]
        low, high = _quartiles(reached)
        inherited, scratch = np.mean([row["accuracy"] for row in group], axis=0)
        lines.append(
            f"| {name} | {len(group)} | {median_epochs(reached):g} [{low:g}, {high:g}] "
            f"| {reached.count(None)} | {inherited:.2f} | {scratch:.2f} | {_mean(group)} |"
        )
    return [*lines, *(f"diverged, and left out: {plan}" for plan in diverged)]


def _quartiles(reached: Sequence[int | None]) -> tuple[float, float]:
    counts = [float("inf") if count is None else float(count) for count in reached]
    low, high = np.quantile(counts, (0.25, 0.75), method="inverted_cdf")
    return float(low), float(high)


def _mean(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the mean difference over pairs, with the standard error that their spread gives."""
    gains = [row["difference"]["mean"] for row in rows]
    if len(gains) < 2:
        return f"{gains[0]:+.2f} ± {rows[0]['difference']['error']:.2f}"
    return f"{statistics.mean(gains):+.2f} ± {statistics.stdev(gains) / len(gains) ** 0.5:.2f}"


def main(arguments: Sequence[str]) -> None:
    """Train what is missing, print the table and write it to `inheritance.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of each dataset")
    parser.add_argument("--epochs", type=int, default=FULL_BUDGET.epochs, help="of a full training")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    plans = [
        Plan(dataset, pair, options.epochs)
        for dataset in options.datasets
        for pair in range(options.pairs)
    ]
    rows = run_missing(plans, options.out, options.processes)
    print("\n".join(report(rows)))
    document = {"at": datetime.now(UTC).isoformat(), "rows": rows}
    (options.out / "inheritance.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
