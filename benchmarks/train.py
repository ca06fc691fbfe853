"""What the trainer costs beside bare loops: `make bench-train`.

The same networks on the same random images in memory, in the same precision: by the platform's
trainer with its defaults, by a bare loop without and with a batched flip and shift, and by the
usual `DataLoader` with transforms of single images. Contenders take turns; a run's first epoch does
not count. It prints a table and writes it to `benchmarks/out/train.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the command line; read by torch

import numpy as np
import torch

from automl.morphism.architecture import Architecture
from automl.morphism.seeds import seed_architectures
from automl.training.examples import Examples
from automl.training.precision import choose_precision
from automl.training.problem import Budget, FitHooks
from automl.training.trainer import fit
from benchmarks.fits import Place, fit_problem
from benchmarks.loops import Loop, bare_loop, flip_and_shift, loader_loop, unchanged

OUT = Path(__file__).parent / "out"
OURS, BARE, BARE_CHANGED = "trainer", "bare", "bare, flip and shift"
CLASSES = 10
BATCH_SIZE = 64
LEAST_RATIO = 0.95  # of our images per second to those of the bare loop
_EPOCHS = 3
_SIZES = (32, 32, 32, 64)
_SEEDS = (0, 1, 2, 0)  # which seed network of each size
_MOST_ROWS = 200 * BATCH_SIZE


@dataclass(frozen=True, slots=True)
class Case:
    """What is trained, and where.

    Attributes:
        network: place in the list of networks.
        device: "cpu" or "cuda".
        threads: CPU threads.
    """

    network: int
    device: str
    threads: int

    @property
    def place(self) -> Place:
        """Where it is trained, in the precision that the platform would choose."""
        precision = choose_precision(self.device, self.architecture)
        return Place(self.device, self.threads, precision)

    @property
    def architecture(self) -> Architecture:
        """The network."""
        size = _SIZES[self.network]
        return seed_architectures(size, CLASSES)[_SEEDS[self.network]]

    @property
    def label(self) -> str:
        """For the table."""
        architecture = self.architecture
        return (
            f"seed {_SEEDS[self.network]}, {architecture.input_size} px, "
            f"{architecture.macs / 1e6:.0f} M multiply-adds, {self.device}, "
            f"{self.threads} thread{'s' * (self.threads > 1)}"
        )


def our_seconds(loop: Loop) -> list[float]:
    """Return the seconds of each epoch of the platform's trainer with its defaults.

    Without selection rows it evaluates nothing; its epochs include augmentation, averaged weights
    and the copies that it makes for checkpoints. Weights count as trained before, since fresh ones
    would see smaller images at first, which makes epochs shorter than a bare loop's.
    """
    budget = Budget(loop.epochs, loop.batch_size, patience=0)
    problem = fit_problem(loop.architecture, loop.rows, budget, (0,), loop.place)
    problem = replace(problem, is_warm=True)
    curve = fit(problem, None, FitHooks()).curve
    assert all(epoch.resolution == loop.architecture.input_size for epoch in curve)
    return [epoch.seconds - epoch.evaluation_seconds for epoch in curve]


def contenders(loaders: Sequence[int]) -> dict[str, Callable[[Loop], list[float]]]:
    """Return what is timed; each gives the seconds of its epochs."""

    def loader(workers: int) -> Callable[[Loop], list[float]]:
        return lambda loop: loader_loop(loop, workers)

    return {
        OURS: our_seconds,
        BARE: lambda loop: bare_loop(loop, unchanged),
        BARE_CHANGED: lambda loop: bare_loop(loop, flip_and_shift),
        **{_loader_name(workers): loader(workers) for workers in loaders},
    }


def _loader_name(workers: int) -> str:
    return f"DataLoader, {workers} workers"


def measure(case: Case, pairs: int, seconds: float, loaders: Sequence[int]) -> dict[str, Any]:
    """Return images per second of every contender in every round.

    Args:
        case: what is trained.
        pairs: rounds; in every other one the order is turned round.
        seconds: that an epoch of the bare loop should take.
        loaders: the numbers of workers of the loaders.
    """
    torch.set_num_threads(case.threads)
    size = case.architecture.input_size
    loop = Loop(
        case.architecture, random_rows(size, 4 * BATCH_SIZE), case.place, BATCH_SIZE, _EPOCHS
    )
    speed = _rate(bare_loop(loop, unchanged), 4)
    steps = int(np.clip(seconds * speed / BATCH_SIZE, 4, _MOST_ROWS // BATCH_SIZE))
    loop = replace(loop, rows=random_rows(size, steps * BATCH_SIZE))
    entrants = contenders(loaders)
    rates: dict[str, list[float]] = {name: [] for name in entrants}
    for pair in range(pairs):
        for name in reversed(entrants) if pair % 2 else entrants:
            torch.set_num_threads(case.threads)
            rates[name].append(_rate(entrants[name](loop), steps))
    return {
        "case": asdict(case),
        "label": f"{case.label}, {loop.place.precision}",
        "rows": steps * BATCH_SIZE,
        "rates": rates,
    }


def _rate(seconds: Sequence[float], steps: int) -> float:
    """Return images per second; the first epoch warms up and does not count."""
    counted = seconds[1:]
    return steps * BATCH_SIZE * len(counted) / sum(counted)


def random_rows(size: int, count: int) -> Examples:
    """Return random images; what is in them does not change the time."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Examples(images, rng.integers(0, CLASSES, count))


def ratios(result: Mapping[str, Any], other: str) -> np.ndarray:
    """Return our images per second divided by another contender's, round by round."""
    pairs = zip(result["rates"][OURS], result["rates"][other], strict=True)
    return np.array([ours / theirs for ours, theirs in pairs], dtype=np.float64)


def report(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table, in Markdown: medians, ratios with their quartiles."""
    names = list(results[0]["rates"])
    lines = [
        "| network | " + " | ".join(f"{name}, images/s" for name in names) + " | "
        + " | ".join(f"{OURS} : {name}" for name in names[1:]) + " | |",
        "|" + " --- |" * (2 * len(names) + 1),
    ]  # fmt: skip
    for result in results:
        cells = [f"{np.median(result['rates'][name]):,.0f}" for name in names]
        for name in names[1:]:
            low, middle, high = np.quantile(ratios(result, name), (0.25, 0.5, 0.75))
            cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
        is_enough = np.median(ratios(result, BARE)) >= LEAST_RATIO
        verdict = f"{'pass' if is_enough else 'FAIL'} ({LEAST_RATIO} of {BARE})"
        lines.append(f"| {result['label']} | " + " | ".join(cells) + f" | {verdict} |")
    return lines


def main(arguments: Sequence[str]) -> None:
    """Measure all cases, print the table and write it to `train.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", type=int, default=list(range(len(_SIZES))))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--loaders", nargs="*", type=int, default=[0, 2], help="their workers")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.8, help="of an epoch")
    options = parser.parse_args(arguments)
    cases = [
        Case(network, "cpu", threads) for network in options.networks for threads in options.threads
    ]
    if torch.cuda.is_available():
        cases += [Case(network, "cuda", 1) for network in options.networks]
    else:
        print("no GPU here: CPU only", file=sys.stderr)
    results = []
    for case in cases:
        results.append(measure(case, options.pairs, options.seconds, options.loaders))
        print(f"{len(results)}/{len(cases)} {case.label}", file=sys.stderr, flush=True)
    print("\n".join(report(results)))
    document = {
        "at": datetime.now(UTC).isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "results": results,
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "train.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
