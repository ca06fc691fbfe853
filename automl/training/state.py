"""A training between two steps: a module, its optimiser, its averaged weights and its best ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch

from automl.domain.training import StopReason
from automl.errors import DivergedError
from automl.training.augmentation import Augmentation
from automl.training.averaging import WeightAverage
from automl.training.checkpoint import Checkpoint, EpochResult
from automl.training.compilation import CompiledPasses
from automl.training.head import fit_network_head, head_rows
from automl.training.inference import BATCH_ROWS
from automl.training.judging import JudgedRows, at_resolution
from automl.training.module import Weights, extract_weights, load_weights
from automl.training.optimizer import OptimizerState, extract_state, load_state
from automl.training.problem import FitHooks, FitProblem, FitResult, InitialWeights, standard_error
from automl.training.recipe import (
    built_module,
    first_resolution,
    fresh_weights,
    optimizer_for,
    peak_rate,
    set_mode,
)
from automl.training.replicas import Replicas
from automl.training.rows import rows_on
from automl.training.schedule import Pace, learning_rate

_POOLED_SHARE = 1 / 3  # of a training of fresh weights
_AT_ONCE_BYTES = 2**22  # of the images of several batches that are augmented together
_STEP_STREAM, _ORDER_STREAM = 1, 4  # spawn keys of the generators of dropout and of the order
_WITHOUT_A_SCORE = frozenset({StopReason.PRUNED, StopReason.SLICE, StopReason.SIGNAL})


class Training:
    """Everything that one training consists of.

    Args:
        problem: what to train and on what.
        start: a checkpoint of the same problem, weights to start from, or None for fresh ones.
        hooks: gives the clock, and may break off an evaluation.
        micro_batch: examples of a forward pass.
    """

    def __init__(
        self,
        problem: FitProblem,
        start: Checkpoint | InitialWeights | None,
        hooks: FitHooks,
        micro_batch: int,
    ) -> None:
        self.problem, self.micro_batch = problem, micro_batch
        self._hooks, self._started_s = hooks, hooks.clock()
        self._device = torch.device(problem.device)
        self._selection = _judged_rows(problem, self._device)
        self._augmentation = Augmentation(
            problem.hyperparameters["augmentation"], problem.symmetries, problem.normalization.mean
        )
        margin = self._augmentation.reach(problem.train.images.shape[1])
        self._rows = rows_on(problem.train, self._device, margin)
        weights = start.weights if start else fresh_weights(problem)
        averaged = start.averaged if isinstance(start, Checkpoint) else weights
        self._module = built_module(problem, weights)
        self._average = built_module(problem, averaged).eval()
        self._averaging = WeightAverage(self._module, self._average)
        set_mode(self._module, problem)
        is_cuda = problem.device == "cuda"
        self._compiled = CompiledPasses(self._module, self._seconds_left) if is_cuda else None
        self._replicas = Replicas(self._module, problem, micro_batch, self._compiled)
        self._optimizer = optimizer_for(self._module, problem)
        self._first_px = first_resolution(problem)
        self.epochs = problem.budget.epochs
        self.epoch = self.step = self._stale_epochs = self._seen = 0
        self._seconds_before = 0.0
        self._curve: list[EpochResult] = []
        self._best: EpochResult | None = None
        self._best_weights: Weights = {}
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self._device)
        self._resolution = self._updates = 0
        self.needs_head = isinstance(start, InitialWeights) and start.fit_head
        self._batches: Generator[tuple[torch.Tensor, torch.Tensor, int]] | None = None
        if isinstance(start, Checkpoint):
            self._restore(start)
        self._pace = Pace(self.epochs * problem.steps, problem.budget.seconds)

    def _restore(self, start: Checkpoint) -> None:
        self.epoch, self.step = start.epoch, start.step
        self._resolution = start.resolution
        self.epochs = start.epochs or self.problem.budget.epochs
        self._stale_epochs, self._seconds_before = start.stale_epochs, start.seconds
        self._curve, self._best = list(start.curve), start.best
        self._best_weights = dict(start.best_weights)
        self._seen = min(start.step * self.problem.batch_size, len(self.problem.train))
        self._loss_sum.fill_(start.loss_sum)
        self._updates = start.updates
        remembered = OptimizerState(start.updates, start.momentum, start.squares)
        load_state(self._optimizer, self._module, remembered)

    def close(self) -> None:
        """End the threads that work for the training, and forget what was compiled."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
        self._replicas.close()
        if self._compiled is not None:
            self._compiled.close()

    def plan(self, epochs: int) -> None:
        """Make the training as many epochs long as this, those behind it included."""
        self.epochs = max(epochs, self.epoch)
        self._pace = Pace(self.epochs * self.problem.steps, self.problem.budget.seconds)

    @property
    def seconds(self) -> float:
        """Wall clock so far, over all attempts."""
        return self._seconds_before + self._hooks.clock() - self._started_s

    @property
    def has_steps(self) -> bool:
        """True if the epoch has steps left, and time for them."""
        return self.step < self.problem.steps and not (self.step and self._is_spent)

    @property
    def is_done(self) -> bool:
        """True if the budget is spent or patience has ended."""
        patience = self.problem.budget.patience
        is_stale = 0 < patience <= self._stale_epochs
        return self.epoch >= self.epochs or is_stale or (self.epoch > 0 and self._is_spent)

    @property
    def is_unjudged(self) -> bool:
        """True if steps have been made, but no weights evaluated."""
        return self.step > 0 and self._best is None

    def _seconds_left(self) -> float:
        return self._pace.seconds_left(self._steps_done, self.seconds)

    @property
    def _is_spent(self) -> bool:
        return self._pace.is_spent(self._steps_done, self.seconds)

    @property
    def _steps_done(self) -> int:
        return self.epoch * self.problem.steps + self.step

    def fit_batch(self) -> None:
        """Make one step."""
        progress = self._pace.progress(self._steps_done, self.seconds)
        if self._batches is None:
            self._batches = self._epoch_batches(progress)
        images, labels, seed = next(self._batches)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(progress, peak_rate(self.problem))
        self._replicas.seed(seed)
        self._optimizer.zero_grad(set_to_none=True)
        self._loss_sum += self._replicas.backward(images, labels)
        self._optimizer.step()
        self._updates += 1
        self.step += 1
        self._seen += len(labels)
        self._averaging.update(self._steps_done, progress)

    def _epoch_batches(self, progress: float) -> Generator[tuple[torch.Tensor, torch.Tensor, int]]:
        """Yield the images (B, C, S, S), labels and dropout's seed of the epoch's further steps."""
        problem, epoch = self.problem, self.epoch
        order = self._rng(_ORDER_STREAM).permutation(len(problem.train))
        order = order[: problem.steps * problem.batch_size]
        seeds = iter(self._rng(_STEP_STREAM).integers(2**63, size=problem.steps)[self.step :])
        size = problem.train.images.shape[1]
        draws = self._augmentation.draw(order, size, problem.seed, epoch, self._device)
        resolution = self._resolution = self._resolution or self._next_resolution(progress)
        first, at_once = self.step * problem.batch_size, self._rows_at_once(size)
        with closing(self._rows.batches(order[first:], at_once)) as blocks:
            for start, rows in zip(itertools.count(first, at_once), blocks, strict=False):
                changed = self._augmentation.changed(rows, draws, start, problem.batch_size)
                for labels in torch.split(rows.labels, problem.batch_size):
                    yield at_resolution(next(changed), resolution), labels, int(next(seeds))

    def _rows_at_once(self, size: int) -> int:
        """Return how many rows are augmented at once, a multiple of the batch size.

        Args:
            size: height and width of the images.
        """
        batch_size, channels = self.problem.batch_size, self.problem.train.images.shape[-1]
        return batch_size * max(1, _AT_ONCE_BYTES // int(batch_size * size**2 * channels))

    def _rng(self, stream: int) -> np.random.Generator:
        """Return the epoch's generator of a stream."""
        seed = np.random.SeedSequence([*self.problem.seed, self.epoch], spawn_key=(stream,))
        return np.random.default_rng(seed)

    def _next_resolution(self, progress: float) -> int:
        """Return the resolution of an epoch; what was best at a lower one is best no more."""
        full = self.problem.architecture.input_size
        pixels = self._first_px if progress < _POOLED_SHARE else full
        if self._best is not None and 0 < self._best.resolution < pixels:
            self._best, self._best_weights, self._stale_epochs = None, {}, 0
        return pixels

    def fit_head(self) -> EpochResult | StopReason:
        """Fit the last layer to what the others compute of the rows; this is the first epoch.

        Returns:
            What it came to; or why it was broken off.
        """
        reason: StopReason | None = None

        def should_stop() -> bool:
            nonlocal reason
            reason = self._hooks.should_stop()
            return reason is not None

        rows = head_rows(len(self.problem.train))
        with closing(self._rows.batches(rows, BATCH_ROWS)) as batches:
            loss = fit_network_head(self._module, batches, should_stop, self.problem.precision)
        set_mode(self._module, self.problem)
        if loss is None:
            assert reason is not None
            return reason
        self._average.load_state_dict(self._module.state_dict())
        self.needs_head, self._seen = False, len(rows)
        self._loss_sum.fill_(loss * len(rows))
        return self.finish_epoch()

    def finish_epoch(self) -> EpochResult | StopReason:
        """Evaluate the epoch whose steps are made, and turn to the next one.

        Returns:
            What the epoch came to; or why its evaluation was broken off, which is then made again
            when the training goes on.

        Raises:
            DivergedError: a loss is not finite.
        """
        if self._batches is not None:
            self._batches.close()
            self._batches = None
        train_loss = float(self._loss_sum) / self._seen  # the epoch's first wait for the device
        self._check_finite("training", train_loss)
        before_s = self._hooks.clock()
        resolution = self._resolution or self.problem.architecture.input_size
        measured = self._evaluate(resolution)
        if isinstance(measured, StopReason):
            return measured
        loss, accuracy = measured
        if loss is not None:
            self._check_finite("selection", loss)
        result = EpochResult(
            epoch=self.epoch,
            train_loss=train_loss,
            selection_loss=loss,
            selection_accuracy=accuracy,
            learning_rate=self._optimizer.param_groups[0]["lr"],
            seconds=self.seconds - sum(entry.seconds for entry in self._curve),
            examples=self._seen,
            evaluation_seconds=self._hooks.clock() - before_s,
            resolution=resolution,
            progress=self._pace.share_done(self._steps_done, self.seconds),
        )
        self._note(result)
        return result

    def _note(self, result: EpochResult) -> None:
        """Take in what an epoch came to, and turn to the next one."""
        self._curve.append(result)
        if self._is_better(result):
            self._best, self._stale_epochs = result, 0
            self._best_weights = extract_weights(self._average)
        else:
            self._stale_epochs += 1
        self.epoch, self.step, self._seen, self._resolution = self.epoch + 1, 0, 0, 0
        self._loss_sum.zero_()

    def _evaluate(self, resolution: int) -> tuple[float | None, float | None] | StopReason:
        """Return log loss and accuracy of the averaged weights on the selection rows.

        A slice that ends, a signal, or a deadline before which another epoch has been evaluated
        break it off.
        """

        def should_stop() -> StopReason | None:
            reason = self._hooks.should_stop()
            is_needed = reason is StopReason.DEADLINE and self._best is None
            return None if is_needed else reason

        if self._selection is None:
            return None, None
        return self._selection.evaluate(self._average, resolution, should_stop)

    def _is_better(self, result: EpochResult) -> bool:
        if self._best is None or result.selection_loss is None:
            return True
        best = self._best.selection_loss
        return best is None or result.selection_loss < best

    def _check_finite(self, rows: str, loss: float) -> None:
        if not math.isfinite(loss):
            rate = self.problem.hyperparameters["learning_rate"]
            raise DivergedError(
                f"The {rows} loss is {loss} in epoch {self.epoch} at learning_rate {rate:g}.",
                "lower learning_rate",
            )

    def checkpoint(self) -> Checkpoint:
        """Return copies of everything that is needed to go on."""
        remembered = extract_state(self._optimizer, self._module, self._updates)
        return Checkpoint(
            epoch=self.epoch,
            step=self.step,
            loss_sum=float(self._loss_sum),
            stale_epochs=self._stale_epochs,
            seconds=self.seconds,
            epochs=self.epochs,
            micro_batch=self.micro_batch,
            resolution=self._resolution,
            curve=tuple(self._curve),
            best_epoch=None if self._best is None else self._best.epoch,
            weights=extract_weights(self._module),
            updates=remembered.updates,
            momentum=remembered.momentum,
            squares=remembered.squares,
            averaged=extract_weights(self._average),
            best_weights=dict(self._best_weights),
        )

    def result(self, stopped: StopReason | None, cause: str = "") -> FitResult:
        """Return what the evaluated epochs came to.

        Args:
            stopped: why the training ended before it was done, or None.
            cause: what went wrong, "" if nothing did.
        """
        best, selection = self._best, self.problem.selection
        if best is not None and stopped not in _WITHOUT_A_SCORE:
            best = self._at_full_resolution(best)
        score = None if best is None else best.selection_accuracy
        error = None
        if score is not None and selection is not None:
            error = standard_error(score, len(selection))
        return FitResult(
            stopped=stopped,
            best_weights=None if best is None else dict(self._best_weights),
            best_epoch=None if best is None else best.epoch,
            epochs=len(self._curve),
            score=score,
            error=error,
            log_loss=None if best is None else best.selection_loss,
            curve=tuple(self._curve),
            seconds=self.seconds,
            cause=cause,
            micro_batch=self.micro_batch,
        )

    def _at_full_resolution(self, best: EpochResult) -> EpochResult:
        """Return the best epoch's result as its weights do on the images that they will see."""
        full = self.problem.architecture.input_size
        if best.resolution in {0, full} or self._selection is None:
            return best
        load_weights(self._average, self._best_weights)
        measured = self._selection.evaluate(self._average, full, lambda: None)
        assert not isinstance(measured, StopReason)
        return replace(best, selection_loss=measured[0], selection_accuracy=measured[1])


def _judged_rows(problem: FitProblem, device: torch.device) -> JudgedRows | None:
    """Return the rows that epochs are judged on, None without any."""
    if problem.selection is None or not len(problem.selection):
        return None
    return JudgedRows(problem.selection, device, problem.precision)
