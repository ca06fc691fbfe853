"""Plain training of hand-written networks for a given time, as the arms of `accuracy` need it."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from automl.training.device import cpu_threads

MOST_EPOCHS = 200  # of tiny data; more would only overfit
_PROBED_STEPS = 5  # of each precision, after one to warm up
_PROBED_SHARE = 0.02  # of the time: no step begins later than that, the second one aside
_PREDICTED_ROWS = 256


@dataclass(frozen=True, slots=True)
class Budget:
    """What a training may spend.

    Attributes:
        seconds: wall clock.
        threads: CPU threads.
        seed: of everything random.
        most_epochs: passes over the rows at which it ends although there is time left.
    """

    seconds: float
    threads: int
    seed: int
    most_epochs: int = MOST_EPOCHS


class Recipe(Protocol):
    """A network and how to train it; each group of its optimiser has its peak rate as `peak`."""

    @property
    def module(self) -> nn.Module:
        """The network: uint8 (B, C, S, S) to logits (B, classes)."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What makes the steps."""

    @property
    def batch_size(self) -> int:
        """Examples per step."""

    @property
    def flips_tests(self) -> bool:
        """Whether predictions should be made from an image and its mirror image."""

    def begin_epoch(self, epoch: int) -> None:
        """Get ready for an epoch."""

    def batch(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the changed images of some rows, uint8 (B, C, S, S)."""

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return what is minimised."""

    def rate(self, progress: float) -> float:
        """Return the learning rate as a share of its peak; progress is from 0 to 1."""

    def after_step(self, step: int, progress: float) -> None:
        """Do what the recipe does between steps; steps count from 1."""

    def end(self) -> None:
        """Leave in the module the weights to predict with."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to.

    Attributes:
        epochs: passes over the rows, the last one perhaps in part.
        steps: of the optimiser.
        seconds: wall clock.
        precision: of the forward pass.
    """

    epochs: float
    steps: int
    seconds: float
    precision: str


def train_for(recipe: Recipe, labels: np.ndarray, budget: Budget) -> Trained:
    """Train a recipe's module in place until the time or the number of epochs is reached.

    The schedule follows the larger of both shares that are spent. So it always ends when the
    budget does, whatever else the machine does meanwhile.

    Args:
        recipe: the network and its training.
        labels: of all its rows, int64 [n].
        budget: what may be spent.
    """
    started_s = time.monotonic()
    with cpu_threads(budget.threads):
        dtype = _faster_precision(recipe, torch.from_numpy(labels), budget)
        most_steps = budget.most_epochs * (len(labels) // recipe.batch_size)
        step = 0
        for step, rows in enumerate(_batches(recipe, len(labels), budget.seed)):
            progress = max((time.monotonic() - started_s) / budget.seconds, step / most_steps)
            if progress >= 1:
                break
            for group in recipe.optimizer.param_groups:
                group["lr"] = group["peak"] * recipe.rate(progress)
            _fit_batch(recipe, rows, torch.from_numpy(labels), dtype)
            recipe.after_step(step + 1, progress)
        recipe.end()
    return Trained(
        epochs=step * recipe.batch_size / len(labels),
        steps=step,
        seconds=time.monotonic() - started_s,
        precision=str(dtype).removeprefix("torch."),
    )


def _batches(recipe: Recipe, count: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield the rows of whole batches, epoch after epoch, without end."""
    generator = torch.Generator().manual_seed(seed)
    epoch = 0
    while True:
        recipe.begin_epoch(epoch)
        order = torch.randperm(count, generator=generator)
        whole = count - count % recipe.batch_size
        yield from torch.split(order[:whole], recipe.batch_size)
        epoch += 1


def _fit_batch(
    recipe: Recipe, rows: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype
) -> None:
    loss = _loss(recipe, rows, labels, dtype)
    recipe.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    recipe.optimizer.step()


def _loss(
    recipe: Recipe, rows: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    with _autocast(dtype):
        logits = recipe.module(recipe.batch(rows))
    return recipe.loss(logits.float(), labels[rows])


def _autocast(dtype: torch.dtype) -> AbstractContextManager[object]:
    return nullcontext() if dtype is torch.float32 else torch.autocast("cpu", dtype=dtype)


def _faster_precision(recipe: Recipe, labels: torch.Tensor, budget: Budget) -> torch.dtype:
    """Return the precision whose steps take less time; the module stays as it is."""
    state = copy.deepcopy(recipe.module.state_dict())
    recipe.begin_epoch(0)
    seconds = {
        dtype: _step_seconds(recipe, labels, dtype, _PROBED_SHARE * budget.seconds)
        for dtype in (torch.float32, torch.bfloat16)
    }
    recipe.optimizer.zero_grad(set_to_none=True)
    recipe.module.load_state_dict(state)
    return min(seconds, key=lambda dtype: seconds[dtype])


def _step_seconds(
    recipe: Recipe, labels: torch.Tensor, dtype: torch.dtype, limit_s: float
) -> float:
    """Return the median seconds of forward and backward pass."""
    rows = torch.arange(recipe.batch_size)
    started_s = time.perf_counter()
    taken: list[float] = []
    while len(taken) <= 1 or (
        len(taken) <= _PROBED_STEPS and time.perf_counter() - started_s < limit_s
    ):
        start_s = time.perf_counter()
        _loss(recipe, rows, labels, dtype).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        taken.append(time.perf_counter() - start_s)
    return statistics.median(taken[1:])


def predict(module: nn.Module, images: np.ndarray, threads: int, *, mirror: bool) -> np.ndarray:
    """Return predicted classes, int64 [n], computed in float32.

    Args:
        module: the network.
        images: uint8 [n, S, S, C].
        threads: CPU threads.
        mirror: whether the logits of the mirror images are added.
    """
    module.eval()
    parts = []
    with torch.inference_mode(), cpu_threads(threads):
        for rows in torch.split(torch.from_numpy(images), _PREDICTED_ROWS):
            batch = rows.permute(0, 3, 1, 2)
            logits = module(batch)
            if mirror:
                logits = logits + module(batch.flip(3))
            parts.append(logits.argmax(dim=1))
    return torch.cat(parts).numpy()


def shifted(images: torch.Tensor, shifts: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Return images moved by whole pixels, what is behind the border mirrored.

    Args:
        images: (B, S, S, C).
        shifts: down and right, smaller than S, int64 (2, B).
        mirrored: which are turned left to right first, bool (B,).
    """
    size = images.shape[1]
    places = torch.arange(size) - shifts[..., None]
    places = (size - 1) - (places.abs() - (size - 1)).abs()
    places[1] = torch.where(mirrored[:, None], size - 1 - places[1], places[1])
    batch = torch.arange(len(images))
    return images[batch[:, None, None], places[0][:, :, None], places[1][:, None, :]]
