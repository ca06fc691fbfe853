"""How well the memory of trainings is predicted after ten of them: `make bench-memory`.

Trains random morphs of the seeds on noise, one after the other in one process, and judges the
correction that follows from the first ten by the others. It prints a line for each image size and
writes them to `benchmarks/out/memory.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from automl.domain.trial import Device
from automl.morphism.architecture import Architecture
from automl.morphism.memory import memory_need
from automl.morphism.moves import Limits, random_move
from automl.morphism.seeds import seed_architectures
from automl.search.memory_model import fit_correction
from automl.tracks.image.facts import ImageFacts
from automl.tracks.image.memory import training_plan
from automl.tracks.image.space import DEFAULT_HYPERPARAMETERS
from automl.training.augmentation import most_reach
from automl.training.device import choose_device, device_type
from automl.training.examples import Examples
from automl.training.lines import Lines
from automl.training.module import Normalization
from automl.training.peak_memory import peak_memory
from automl.training.problem import Budget, FitHooks, FitProblem
from automl.training.symmetry import find_symmetries
from automl.training.trainer import fit

OUT = Path(__file__).parent / "out"
LEARNED, JUDGED = 10, 30
ROWS, SELECTION = 256, 512
NORMALIZATION = Normalization((127.0,) * 3, (60.0,) * 3)


def measured(size: int) -> list[tuple[int, int]]:
    """Return predicted and measured bytes of trainings on images of a size."""
    rng, found = np.random.default_rng(size), list[tuple[int, int]]()
    train, selection = _noise(ROWS, size, rng), _noise(SELECTION, size, rng)
    symmetries = find_symmetries(train, selection)
    lines = Lines.of(torch.from_numpy(train.images), most_reach(size))
    facts = ImageFacts(
        image_size=size,
        classes=2,
        batch_size=64,
        evaluation_batch=SELECTION,
        dataset_bytes=lines.values.nbytes + selection.images.nbytes,
    )
    plan = training_plan(facts, Device(type=device_type()))
    for number in range(LEARNED + JUDGED):
        architecture = _morph(size, number, rng)
        problem = FitProblem(
            architecture, DEFAULT_HYPERPARAMETERS, NORMALIZATION, symmetries, train, selection,
            Budget(epochs=2, batch_size=64, patience=0), (0,), choose_device(), threads=1,
        )  # fmt: skip
        with peak_memory(problem.device) as peak:
            result = fit(problem, None, FitHooks())
        if peak.size_bytes is None or result.micro_batch < problem.batch_size:
            raise SystemExit("Peaks cannot be measured here, or memory is short.")
        found.append((memory_need(architecture, plan).total, peak.size_bytes))
    return found


def _morph(size: int, number: int, rng: np.random.Generator) -> Architecture:
    architecture = seed_architectures(size, 10)[number % 3]
    for _ in range(int(rng.integers(0, 7))):
        drawn = random_move(architecture, Limits(), rng)
        architecture = architecture if drawn is None else drawn[1]
    return architecture


def _noise(rows: int, size: int, rng: np.random.Generator) -> Examples:
    images = rng.integers(0, 256, (rows, size, size, 3), dtype=np.uint8)
    return Examples(images, np.arange(rows) % 10)


def main() -> None:
    """Measure, print and write."""
    rows = []
    for size in (8, 32, 48):
        points = measured(size)
        correction = fit_correction(points[:LEARNED])
        ratios = np.array([peak / correction.expected(need) for need, peak in points[LEARNED:]])
        rows.append(
            {
                "device": device_type(),
                "image_size": size,
                "within_15_percent": float(np.mean(np.abs(ratios - 1) <= 0.15)),
                "below_bound": float(np.mean(ratios <= correction.margin)),
                "offset_mb": correction.offset_bytes / 1e6,
                "slope": correction.slope,
                "margin": correction.margin,
            }
        )
        print(rows[-1])
    OUT.mkdir(exist_ok=True)
    (OUT / "memory.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
