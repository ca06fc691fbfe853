"""A small training in a process of its own, which kills itself where it is told to."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch._dynamo  # noqa: F401 - by the first optimiser otherwise, in each forked process anew
from sklearn.datasets import load_digits

from automl.domain.training import StopReason
from automl.morphism.seeds import seed_architectures
from automl.tracks.image.space import DEFAULT_HYPERPARAMETERS
from automl.training.checkpoint import Checkpoint
from automl.training.examples import Examples
from automl.training.module import Normalization
from automl.training.precision import Precision, has_bfloat16_units
from automl.training.problem import Budget, FitHooks, FitProblem
from automl.training.results import weights_to_bytes
from automl.training.symmetry import Symmetries
from automl.training.trainer import fit

EPOCHS, STEPS = 5, 7  # of each epoch


@dataclass(frozen=True, slots=True)
class Kill:
    """Where the process ends.

    Attributes:
        before_step: the step, counted over all attempts' own steps from 0; None for none.
        after_save: so many checkpoints are written; None for none.
    """

    before_step: int | None = None
    after_save: int | None = None


def train(folder: Path, kill: Kill) -> None:
    """Train on from the folder's checkpoint, and write the best weights there at the end."""
    path = folder / "checkpoint"
    start = Checkpoint.from_bytes(path.read_bytes()) if path.exists() else None
    steps = saves = 0

    def should_stop() -> StopReason | None:
        nonlocal steps
        if steps == kill.before_step:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return None

    def save(checkpoint: Checkpoint) -> None:
        nonlocal saves
        partial = folder / "partial"
        partial.write_bytes(checkpoint.to_bytes())
        partial.rename(path)
        saves += 1
        if saves == kill.after_save:
            os.kill(os.getpid(), signal.SIGKILL)

    # a clock that stands still: saving takes no time, so that every epoch is saved
    hooks = FitHooks(should_stop=should_stop, save=save, clock=lambda: 0.0)
    result = fit(_problem(), start, hooks)
    assert result.best_weights is not None
    (folder / "weights").write_bytes(weights_to_bytes(result.best_weights))


def _problem() -> FitProblem:
    data = load_digits()
    images = np.repeat((data.images * 15).astype(np.uint8)[..., None], 3, axis=3)
    labels = data.target.astype(np.int64)
    count = 64 * STEPS
    return FitProblem(
        architecture=seed_architectures(8, 10)[0],
        hyperparameters={**DEFAULT_HYPERPARAMETERS, "dropout": 0.3},
        normalization=Normalization((77.0,) * 3, (96.0,) * 3),
        symmetries=Symmetries(mirror=True, colour=True),
        train=Examples(images[:count], labels[:count]),
        selection=Examples(images[count : count + 200], labels[count : count + 200]),
        budget=Budget(EPOCHS, 64, 0),
        seed=(1, 2),
        device="cpu",
        threads=1,
        precision=Precision.BFLOAT16 if has_bfloat16_units() else Precision.FLOAT32,
    )
