"""Small trainings for tests of the trainer, and an outside for them that records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from automl.domain.training import StopReason
from automl.morphism.architecture import Architecture, Node, Op
from automl.tracks.image.space import DEFAULT_HYPERPARAMETERS
from automl.training.checkpoint import Checkpoint, EpochResult
from automl.training.examples import Examples
from automl.training.module import Normalization
from automl.training.problem import Budget, FitHooks, FitProblem, FitResult
from automl.training.symmetry import Symmetries
from tests.digits import digits


def network(
    widths: Sequence[int] = (8, 16, 16), dropout: float = 0.0, size: int = 8
) -> Architecture:
    """Return a chain of convolutions, each but the first behind a pool, for 10 classes."""
    nodes = [Node(Op.INPUT)]

    def add(op: Op, **attributes: float) -> None:
        nodes.append(Node(op, (len(nodes) - 1,), attributes))

    for block, width in enumerate(widths):
        if block:
            add(Op.MAX_POOL, kernel=2, stride=2)
        add(Op.CONV, channels=width, kernel=3, stride=1, groups=1, bias=0)
        add(Op.BATCH_NORM)
        add(Op.RELU)
    add(Op.GLOBAL_POOL)
    if dropout:
        add(Op.DROPOUT, rate=dropout)
    add(Op.DENSE, units=10)
    return Architecture(size, 3, tuple(nodes)).canonical()[0]


def shuffled_digits() -> Examples:
    """Return all of scikit-learn's digits in some order."""
    pixels, labels = digits()
    images = np.repeat(pixels[..., None], 3, axis=3)
    order = np.random.default_rng(0).permutation(len(images))
    return Examples(images[order], labels.astype(np.int64)[order])


DIGITS = shuffled_digits()


def rows(start: int, stop: int) -> Examples:
    """Return some of the digits."""
    return Examples(DIGITS.images[start:stop], DIGITS.labels[start:stop])


def problem(
    epochs: int = 3, patience: int = 0, train: int = 100, dropout: float = 0.25
) -> FitProblem:
    """Return a training on so many digits; 360 others are the selection rows."""
    return FitProblem(
        architecture=network(dropout=dropout),
        hyperparameters={**DEFAULT_HYPERPARAMETERS, "augmentation": 1.0},
        normalization=Normalization((77.0,) * 3, (96.0,) * 3),
        symmetries=Symmetries(mirror=True, colour=True),
        train=rows(360, 360 + train),
        selection=rows(0, 360),
        budget=Budget(epochs=epochs, batch_size=32, patience=patience),
        seed=(5, 7),
        device="cpu",
        threads=1,
    )


@dataclass
class Outside:
    """Hooks that stop before a step, record, and tell a time that they decide."""

    stop_before: int | None = None
    reason: StopReason = StopReason.SLICE
    saved: list[Checkpoint] = field(default_factory=list)
    epochs: list[EpochResult] = field(default_factory=list)
    asked: int = 0
    now_s: float = 0.0
    step_s: float = 0.0
    save_s: float = 0.0

    def should_stop(self) -> StopReason | None:
        self.asked += 1
        self.now_s += self.step_s
        return self.reason if self.asked - 1 == self.stop_before else None

    def save(self, checkpoint: Checkpoint) -> None:
        self.now_s += self.save_s
        self.saved.append(Checkpoint.from_bytes(checkpoint.to_bytes()))

    def add_epoch(self, epoch: EpochResult) -> StopReason | None:
        self.epochs.append(epoch)
        return None

    @property
    def hooks(self) -> FitHooks:
        return FitHooks(self.should_stop, self.add_epoch, self.save, lambda: self.now_s)


def assert_same(found: FitResult, expected: FitResult) -> None:
    """Require that two trainings came to the same weights, curves and results."""
    assert found.best_weights is not None
    assert expected.best_weights is not None
    assert found.best_weights.keys() == expected.best_weights.keys()
    for key, array in expected.best_weights.items():
        np.testing.assert_array_equal(found.best_weights[key], array, err_msg=key)
    without_time = [
        [replace(epoch, seconds=0, evaluation_seconds=0) for epoch in result.curve]
        for result in (found, expected)
    ]
    assert without_time[0] == without_time[1]
    assert (found.best_epoch, found.score, found.log_loss, found.stopped) == (
        expected.best_epoch,
        expected.score,
        expected.log_loss,
        expected.stopped,
    )
