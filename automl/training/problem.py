"""Arguments and results of trainings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from automl.domain.training import StopReason
from automl.errors import ConfigError, DataError
from automl.morphism.architecture import Architecture
from automl.training.checkpoint import Checkpoint, EpochResult
from automl.training.examples import Examples
from automl.training.module import Normalization, Weights
from automl.training.precision import Precision
from automl.training.symmetry import Symmetries

_NEEDED = frozenset({"learning_rate", "weight_decay", "augmentation"})


@dataclass(frozen=True, slots=True)
class Budget:
    """Budget of a training.

    Attributes:
        epochs: passes over the training rows, 1 or more.
        batch_size: examples per step, 2 or more.
        patience: epochs without a better selection loss after which it ends; 0 for never.
        seconds: wall clock that the training is sized to, if `epochs` take longer; None for any.
    """

    epochs: int
    batch_size: int
    patience: int
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.patience < 0:
            raise ConfigError(
                f"{self} cannot be trained.", "set epochs to 1 or more, batch_size to 2 or more"
            )


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """Weights to start from.

    Attributes:
        weights: by `<node index>.<name>`.
        fit_head: whether the first epoch fits the last dense layer alone to what the others
            compute.
    """

    weights: Weights
    fit_head: bool = False


@dataclass(frozen=True, slots=True)
class FitProblem:
    """One training.

    Attributes:
        architecture: in canonical order.
        hyperparameters: learning_rate (peak), weight_decay, augmentation (0 to 1), and perhaps
            dropout (as for `Network`).
        normalization: of the training rows.
        symmetries: the changes of images that keep their labels.
        train: the rows to learn from, 2 or more.
        selection: the rows that decide which epoch is best; without any the last one is.
        budget: what it may spend.
        seed: decides everything that is random.
        device: "cpu" or "cuda".
        threads: CPU threads.
        precision: what convolutions and dense layers compute in.
        is_warm: whether the weights to start from have been trained before; they then get a lower
            learning rate, and no smaller images.
        frozen: how many of the first nodes keep their weights, of a network that was pretrained on
            other images; None for any other.
    """

    architecture: Architecture
    hyperparameters: Mapping[str, float]
    normalization: Normalization
    symmetries: Symmetries
    train: Examples
    selection: Examples | None
    budget: Budget
    seed: Sequence[int]
    device: str
    threads: int
    precision: Precision = Precision.FLOAT32
    is_warm: bool = False
    frozen: int | None = None

    def __post_init__(self) -> None:
        missing = sorted(_NEEDED - self.hyperparameters.keys())
        if missing:
            raise ConfigError(
                f"The hyperparameters lack {', '.join(missing)}.",
                "set them; automl.tracks.image.space.GENES has values to start with",
            )
        if len(self.train) < 2:
            raise DataError(f"There are {len(self.train)} training rows.", "add at least two")

    @property
    def keeps_norms(self) -> bool:
        """True if batch norms keep their statistics: pretrained ones beat those of a batch."""
        return self.frozen is not None

    @property
    def batch_size(self) -> int:
        """Examples per step: the budget's, or all of them if they are fewer."""
        return min(self.budget.batch_size, len(self.train))

    @property
    def steps(self) -> int:
        """Steps per epoch; a last batch of one is dropped, it has no variance to normalise by."""
        whole, rest = divmod(len(self.train), self.batch_size)
        return whole + (rest > 1)


def _never_stop() -> StopReason | None:
    return None


def _go_on(_epoch: EpochResult) -> StopReason | None:
    return None


def _as_planned(_first: EpochResult) -> int | None:
    return None


def _keep_nothing(_checkpoint: Checkpoint) -> None:
    return None


@dataclass(frozen=True, slots=True)
class FitHooks:
    """Hooks by which the outside takes part in a training.

    Attributes:
        should_stop: asked before every step; a reason ends the training.
        on_epoch: receives every complete epoch; a reason ends the training after it.
        save: receives a checkpoint when one is due.
        clock: seconds from any start.
        replan: asked after the first epoch for how many epochs to train in all; None keeps the
            budget's.
    """

    should_stop: Callable[[], StopReason | None] = _never_stop
    on_epoch: Callable[[EpochResult], StopReason | None] = _go_on
    save: Callable[[Checkpoint], None] = _keep_nothing
    clock: Callable[[], float] = time.monotonic
    replan: Callable[[EpochResult], int | None] = _as_planned


@dataclass(frozen=True, slots=True)
class FitResult:
    """Result of a training.

    Attributes:
        stopped: why it was stopped, None if it ended by itself.
        best_weights: averaged weights of the epoch with the lowest selection loss, or of the last
            epoch without selection rows; None before the first evaluation.
        best_epoch: that epoch, from 0.
        epochs: evaluated epochs; the last one is shorter where time was over.
        score: accuracy of the best epoch on the selection rows.
        error: the score's standard error.
        log_loss: log loss of the best epoch on the selection rows (nats per example).
        curve: the evaluated epochs.
        seconds: wall clock, over all attempts.
        cause: what went wrong in a training that diverged; "" in others.
        micro_batch: examples of a forward pass; fewer than of a step if memory was short.
    """

    stopped: StopReason | None
    best_weights: Weights | None
    best_epoch: int | None
    epochs: int
    score: float | None
    error: float | None
    log_loss: float | None
    curve: tuple[EpochResult, ...] = field(repr=False)
    seconds: float
    cause: str
    micro_batch: int


def standard_error(accuracy: float, count: int) -> float:
    """Return the standard error of an accuracy measured on `count` rows."""
    return math.sqrt(accuracy * (1 - accuracy) / count)
