"""Do two trainings with half of the cores each make as much progress as one with all of them?

`make bench-threads`. Each training is a process of its own that runs the trainer on random images
of CIFAR-10's shape; the processes of a run start together. Rates are images of the training rows
per second, summed over the processes, without start and first epoch. One worker trains once with
the threads that the platform gives it, and once with a thread for each core, which it has only for
large networks; as many workers as there are cores train with the threads that they get. The three
alternate, so that what else the machine does falls on all alike. Where that is much, only the
images per second of processor time can be compared: a thread more, or a neighbour, costs some.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from automl.domain.specification import SearchSection
from automl.domain.training import StopReason
from automl.machine.cores import available_cores, limited_pools, threads_of_trial
from automl.morphism.seeds import seed_architectures
from automl.tracks.image.space import DEFAULT_HYPERPARAMETERS
from automl.tracks.image.spending import FULL_BUDGET, useful_threads
from automl.training.checkpoint import EpochResult
from automl.training.examples import Examples
from automl.training.module import Normalization
from automl.training.problem import Budget, FitHooks, FitProblem
from automl.training.symmetry import Symmetries
from automl.training.trainer import fit
from benchmarks.json_lines import append_line, read_lines

OUT = Path("benchmarks/out/threads.json")
LINES = Path("benchmarks/out/threads.jsonl")
IMAGE_SIZE, CLASSES, ROWS = 32, 10, 1024
_GO = "go\n"


class Arm(StrEnum):
    """What is compared."""

    ONE = "one"
    ONE_FORCED = "one_forced"
    MANY = "many"


def train(seed: int, threads: int, seconds: float) -> tuple[float, float]:
    """Return the images of one training in this process per second, and per processor second.

    Args:
        seed: which of the seed architectures.
        threads: CPU threads of it.
        seconds: for how long; at least one epoch after the first is measured.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    architecture = seed_architectures(IMAGE_SIZE, CLASSES)[seed]
    ends: list[float] = []
    worked: list[float] = []

    def on_epoch(_: EpochResult) -> StopReason | None:
        if not ends:  # what is made once is made: all processes of the run start to measure
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            assert sys.stdin.readline() == _GO
        ends.append(time.monotonic())
        worked.append(time.process_time())
        return StopReason.DEADLINE if len(ends) > 1 and ends[-1] - ends[0] >= seconds else None

    problem = FitProblem(
        architecture=architecture,
        hyperparameters=DEFAULT_HYPERPARAMETERS,
        normalization=Normalization((128.0,) * 3, (74.0,) * 3),
        symmetries=Symmetries(mirror=True, colour=False),
        train=Examples(images, rng.integers(0, CLASSES, ROWS)),
        selection=None,
        budget=Budget(epochs=100_000, batch_size=FULL_BUDGET.batch_size, patience=0),
        seed=(0,),
        device="cpu",
        threads=threads,
    )
    fit(problem, None, FitHooks(on_epoch=on_epoch))
    images_seen = (len(ends) - 1) * ROWS
    return images_seen / (ends[-1] - ends[0]), images_seen / (worked[-1] - worked[0])


def measure(seed: int, arm: Arm, seconds: float) -> tuple[float, float]:
    """Return the images per second of an arm's trainings together, and per processor second."""
    workers = available_cores() if arm is Arm.MANY else 1
    threads = threads_of_trial(SearchSection(workers=workers))
    if arm is not Arm.ONE_FORCED:
        threads = useful_threads(seed_architectures(IMAGE_SIZE, CLASSES)[seed], threads)
    command = [sys.executable, "-m", "benchmarks.threads", "--train", str(seed), str(threads)]
    with limited_pools(threads):
        children = [
            subprocess.Popen(
                [*command, "--seconds", str(seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
                text=True,
            )
            for _ in range(workers)
        ]
    outputs = []
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write(_GO)
        child.stdin.flush()
    for child in children:
        outputs.append(child.communicate()[0])
        if child.returncode != 0:
            raise RuntimeError(f"a training ended with exit code {child.returncode}")
    rates = [[float(word) for word in output.split()] for output in outputs]
    return sum(rate for rate, _ in rates), statistics.fmean(rate for _, rate in rates)


def main(arguments: list[str]) -> None:
    """Measure what is not measured yet, print the table and write it to `OUT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--train", type=int, nargs=2, metavar=("SEED", "THREADS"))
    options = parser.parse_args(arguments)
    if options.train:
        seed, threads = options.train
        print(*train(seed, threads, options.seconds))
        return
    done = {(row["run"], row["seed"], row["arm"]) for row in read_lines(LINES)}
    for run in range(options.runs):
        for seed in range(len(seed_architectures(IMAGE_SIZE, CLASSES))):
            for arm in Arm:
                if (run, seed, arm) not in done:
                    rate, efficiency = measure(seed, arm, options.seconds)
                    row = {"run": run, "seed": seed, "arm": arm, "rate": rate}
                    append_line(LINES, {**row, "efficiency": efficiency})
    report()


def report() -> None:
    """Print medians and ranges, and write all rates to `OUT`."""
    cores = available_cores()
    rates: defaultdict[tuple[int, str, str], list[float]] = defaultdict(list)
    for row in read_lines(LINES):
        for kind in ("rate", "efficiency"):
            rates[row["seed"], row["arm"], kind].append(row[kind])
    table: list[dict[str, Any]] = []
    heads = ("1 worker", f"1 worker, {cores} threads", f"{cores} workers", "ratio to the better")
    for kind, unit in (("rate", "images/s"), ("efficiency", "images/processor s")):
        print(f"{unit}, median (range)".ljust(34), *(f"{head:>20}" for head in heads))
        for seed, architecture in enumerate(seed_architectures(IMAGE_SIZE, CLASSES)):
            one, forced, many = (rates[seed, arm, kind] for arm in Arm)
            ratio = statistics.median(many) / max(statistics.median(one), statistics.median(forced))
            name = f"{architecture.macs / 1e6:.1f} M multiply-adds"
            shown = (_shown(one), _shown(forced), _shown(many), f"{ratio:.2f}")
            print(name.ljust(34), *(f"{cell:>20}" for cell in shown))
            table.append({"seed": name, "kind": kind, "one": one, "one_forced": forced})
            table[-1] |= {"many": many, "ratio": ratio}
    document = {
        "at": datetime.now(UTC).isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {cores} cores",
        "versions": {"torch": version("torch")},
        "rows": table,
    }
    OUT.write_text(json.dumps(document, indent=1) + "\n")
    print(f"wrote {OUT}")


def _shown(rates: list[float]) -> str:
    return f"{statistics.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})"


if __name__ == "__main__":
    main(sys.argv[1:])
