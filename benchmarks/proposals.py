"""What a Bayesian proposal costs on the network-morphism space, warm and in a fresh process.

`make bench-proposals` prints a table and writes `benchmarks/out/proposals.json`. Networks have 20
to 60 layers. Warm: one process, one new observation between two proposals. Cold: a fresh process
reads a log of sealed segments from a folder and makes its first proposal. One thread; the times are
of the processor, so that other programs on the machine count less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.events import (
    Event,
    TrialOpened,
)
from automl.domain.settings import Settings
from automl.domain.study import Study, replay
from automl.domain.trial import Measurement
from automl.morphism.architecture import Architecture
from automl.morphism.moves import Limits, random_move
from automl.runs.proposals import Proposer, search_space
from automl.steps.study_file import study_spec
from automl.storage.open import open_home
from automl.storage.study_log import StudyLog, StudyRecord
from automl.tracks.image.facts import SPACE_VERSION
from automl.tracks.image.space import NetworkMorphismSpace
from benchmarks.studies import RUN, WORKER, run_opened, trial_completed, trial_taken

OUT = Path(__file__).parent / "out" / "proposals.json"
STUDY = "bench"
IMAGE_SIZE, CLASSES = 32, 10
FEWEST_LAYERS, MOST_LAYERS = 20, 60
_REPETITIONS = 20
_PARTS = 100  # networks that single moves are measured on


def depth(candidate: Candidate) -> int:
    """Return the convolutions and dense layers on the longest path."""
    return Architecture.from_genotype(candidate.genotype).depth


def draw_candidates(count: int, rng: np.random.Generator) -> list[Candidate]:
    """Return the seeds and morphs of morphs of them, these of 20 to 60 layers; all different."""
    space = NetworkMorphismSpace(IMAGE_SIZE, CLASSES)
    found: dict[str, Candidate] = {}
    seeds = list(space.seeds())
    for seed in seeds:
        candidate = seed
        while depth(candidate) < FEWEST_LAYERS:
            child = space.mutate(candidate, rng)
            candidate = child if depth(child) >= depth(candidate) else candidate
        found[candidate.identity] = candidate
    while len(seeds) + len(found) < count:
        child = space.mutate(list(found.values())[int(rng.integers(len(found)))], rng)
        if FEWEST_LAYERS <= depth(child) <= MOST_LAYERS:
            found[child.identity] = child
    return [*seeds, *found.values()]


def measure_parts(candidates: Sequence[Candidate]) -> dict[str, float]:
    """Return median processor milliseconds of drawing a move and of reading a genotype."""
    rng, limits = np.random.default_rng(0), Limits()
    draws_s, reads_s = [], []
    for candidate in candidates:
        start_s = time.process_time()
        architecture = Architecture.from_genotype(candidate.genotype)
        read_s = time.process_time()
        drawn = random_move(architecture, limits, rng)
        if drawn is not None:
            drawn[1].genotype()
            draws_s.append(time.process_time() - read_s)
        reads_s.append(read_s - start_s)
    return {
        "draw_ms": 1000 * statistics.median(draws_s),
        "read_ms": 1000 * statistics.median(reads_s),
    }


@dataclass(slots=True)
class Writer:
    """Writes a study as its workers would, with made-up losses.

    Attributes:
        log: where it is written; None keeps it in memory only.
        study: its state.
    """

    log: StudyLog | None
    study: Study
    rng: np.random.Generator

    def append(self, events: Sequence[Event]) -> None:
        """Add a version."""
        place = self.study.version + 1
        if self.log is not None:
            self.log.append(events, expected_version=place - 1)
        self.study = replay(((place, event) for event in events), self.study)

    def open_run(self) -> None:
        """Open the run."""
        spec = study_spec(
            {"name": STUDY, "task": "image_classification", "data": {"source": "/nowhere.csv"}}
        )
        space = {"image_size": IMAGE_SIZE, "classes": CLASSES, "version": SPACE_VERSION}
        self.append([run_opened(spec, space)])

    def ticket(self) -> int:
        """Open a trial and return its number."""
        number = len(self.study.trials)
        self.append([TrialOpened(at=datetime.now(UTC), n=number, run=RUN, worker=WORKER)])
        return number

    def finish(self, number: int, candidate: Candidate) -> None:
        """Record a trial that took its candidate and got a score."""
        based_on = self.study.version
        # deeper networks are a little better here, and luck matters as much
        score = float(0.7 + 0.003 * depth(candidate) + 0.03 * self.rng.standard_normal())
        measured = Measurement(
            score=score, error=0.01, loss=-score, epochs=12, best_epoch=9, seconds=31.4,
            weights=f"studies/{STUDY}/trials/{number}/1/weights.safetensors",
        )  # fmt: skip
        taken = trial_taken(number, candidate, based_on, "bayesian")
        self.append([*taken, trial_completed(number, measured)])


def write_study(trials: int, log: StudyLog | None) -> Writer:
    """Return a study of that many finished trials."""
    rng = np.random.default_rng(trials)
    writer = Writer(log, Study(), rng)
    writer.open_run()
    for candidate in draw_candidates(trials, rng):
        writer.finish(writer.ticket(), candidate)
    return writer


def measure_warm(trials: int) -> list[float]:
    """Return processor seconds of proposals with one new observation before each."""
    writer, proposer, taken_s = write_study(trials, None), Proposer(search_space), []
    for _ in range(_REPETITIONS + 1):
        number = writer.ticket()
        start_s = time.process_time()
        proposal = proposer.propose(writer.study, writer.study, number)
        taken_s.append(time.process_time() - start_s)
        writer.finish(number, proposal.candidate)
    return taken_s[1:]  # the first one is cold


def measure_cold(trials: int, repetitions: int) -> list[float]:
    """Return processor seconds of the first proposal of fresh processes, imports aside."""
    with tempfile.TemporaryDirectory(prefix="automl-bench-") as home:
        write_study(trials, open_home(Settings(home)).study_log(STUDY)).ticket()
        command = [sys.executable, "-m", "benchmarks.proposals", "--propose", home]
        return [
            float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(repetitions)
        ]


def propose_once(home: str) -> float:
    """Return the processor seconds of reading a log and proposing its last trial."""
    log = open_home(Settings(home)).study_log(STUDY)
    start_s = time.process_time()
    record = StudyRecord(log)
    study = record.refresh()
    Proposer(search_space).propose(study, study, len(study.trials) - 1)
    return time.process_time() - start_s


def main(arguments: Sequence[str]) -> None:
    """Measure, print a table and write it to `OUT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", nargs="+", type=int, default=[100, 300, 1000])
    parser.add_argument("--cold", type=int, default=3, help="fresh processes per measurement")
    parser.add_argument("--propose", metavar="HOME", help="make one proposal and print its time")
    options = parser.parse_args(arguments)
    if options.propose:
        print(propose_once(options.propose))
        return
    found: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("numpy", "scipy")},
        "rows": [],
    }
    found |= measure_parts(draw_candidates(_PARTS, np.random.default_rng(0)))
    print(
        f"a move with its child's genotype {found['draw_ms']:.2f} ms, reading a genotype "
        f"{found['read_ms']:.2f} ms ({_PARTS} networks)",
        flush=True,
    )
    for trials in options.trials:
        warm, cold = measure_warm(trials), measure_cold(trials, options.cold)
        row = {
            "trials": trials,
            "warm_s": statistics.median(warm),
            "warm_most_s": max(warm),
            "cold_s": statistics.median(cold),
        }
        print(
            f"{trials:6} trials: warm {row['warm_s']:.3f} s (at most {row['warm_most_s']:.3f} s, "
            f"{len(warm)} proposals), cold {row['cold_s']:.2f} s ({len(cold)} processes)",
            flush=True,
        )
        found["rows"].append(row)
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {OUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
