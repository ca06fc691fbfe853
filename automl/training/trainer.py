"""The training loop: weights and their measurement from a problem, stoppable at every step."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from automl.errors import DivergedError, OutOfMemoryError
from automl.training.augmentation import Augmentation, flips_by_default
from automl.training.checkpoint import Checkpoint, EpochResult
from automl.training.device import autocast, is_out_of_memory, repeatable
from automl.training.inference import logits_of
from automl.training.module import (
    Network,
    Normalization,
    Weights,
    build_module,
    extract_weights,
    initial_weights,
    load_weights,
    stored_tensors,
)
from automl.training.problem import (
    DEFAULT_HYPERPARAMETERS,
    Examples,
    FitHooks,
    FitProblem,
    FitResult,
    InitialWeights,
    Rung,
    StopReason,
    standard_error,
)
from automl.training.schedule import learning_rate

__all__ = [
    "DEFAULT_HYPERPARAMETERS", "EpochResult", "Examples", "FitHooks", "FitProblem", "FitResult",
    "InitialWeights", "Normalization", "Rung", "StopReason", "fit",
]  # fmt: skip

LABEL_SMOOTHING = 0.1
MOMENTUM = 0.9
_SAVE_INTERVAL_S = 60.0
_SAVE_SHARE = 20  # saving takes at most one part in this many of the time
_BATCH_STREAM = 1  # spawn key of the generators of augmentation and dropout


def fit(
    problem: FitProblem, start: Checkpoint | InitialWeights | None, hooks: FitHooks
) -> FitResult:
    """Train until the rung is done, patience ends or `hooks.should_stop` gives a reason.

    A training that goes on from a checkpoint equals one that was never stopped, on the CPU and
    with the same number of threads bit for bit.

    Args:
        problem: what to train and on what.
        start: a checkpoint of the same problem, weights to start from, or None for fresh ones.
        hooks: how the outside takes part.

    Raises:
        DivergedError: a loss is not finite.
        OutOfMemoryError: host or device lack memory.
    """
    torch.set_num_threads(problem.threads)
    try:
        with repeatable(problem.device):
            return _fit(problem, start, hooks)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"{problem.device} lacks memory for {problem.architecture.summary()} in batches of "
            f"{problem.batch_size}.",
            "search smaller networks or images, or run fewer workers",
        ) from error


def _fit(
    problem: FitProblem, start: Checkpoint | InitialWeights | None, hooks: FitHooks
) -> FitResult:
    training = _Training(problem, start, hooks)
    saving = _Saving(training, hooks)
    while not training.is_done:
        while training.step < problem.steps:
            reason = hooks.should_stop()
            if reason is not None:
                saving.stop()
                return training.result(reason)
            training.fit_batch()
            saving.after_step()
        reason = hooks.on_epoch(training.finish_epoch())
        saving.after_epoch()
        if reason is not None:
            saving.stop()
            return training.result(reason)
    saving.stop()  # who dies before the result is recorded need not train again
    return training.result(None)


class _Training:
    """A module, its optimiser and how far they are."""

    def __init__(
        self, problem: FitProblem, start: Checkpoint | InitialWeights | None, hooks: FitHooks
    ) -> None:
        self.problem, self._clock, self._started_s = problem, hooks.clock, hooks.clock()
        device = torch.device(problem.device)
        self._images = torch.from_numpy(np.array(problem.train.images)).to(device)
        self._labels = torch.from_numpy(np.array(problem.train.labels)).to(device)
        self._selection = None
        if problem.selection is not None and len(problem.selection):
            images = torch.from_numpy(np.array(problem.selection.images))
            labels = torch.from_numpy(np.array(problem.selection.labels))
            self._selection = images.to(device), labels.to(device)
        self._augment = _augmentation(problem)
        self._module = build_module(
            problem.architecture, problem.normalization, problem.hyperparameters.get("dropout")
        )
        if start is None:
            load_weights(self._module, initial_weights(problem.architecture, problem.seed))
        else:
            load_weights(self._module, start.weights)
        self._module.to(device)
        self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = _optimizer(self._module, problem.hyperparameters["weight_decay"])
        self.epoch = self.step = self._stale_epochs = 0
        self._order: np.ndarray | None = None  # of the epoch's examples
        self._seconds_before = 0.0
        self._curve: list[EpochResult] = []
        self._best: EpochResult | None = None
        self._best_weights: Weights = {}
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        if isinstance(start, Checkpoint):
            self._restore(start)

    def _restore(self, start: Checkpoint) -> None:
        self.epoch, self.step = start.epoch, start.step
        self._stale_epochs, self._seconds_before = start.stale_epochs, start.seconds
        self._curve, self._best = list(start.curve), start.best
        self._best_weights = dict(start.best_weights)
        self._loss_sum.fill_(start.loss_sum)
        tensors = stored_tensors(self._module)
        for key, array in start.momentum.items():
            buffer = torch.zeros_like(tensors[key]).detach()
            buffer.copy_(torch.from_numpy(np.array(array)))
            self._optimizer.state[tensors[key]]["momentum_buffer"] = buffer

    @property
    def is_done(self) -> bool:
        """Whether the rung is spent or patience has ended."""
        rung = self.problem.rung
        is_stale = rung.patience > 0 and self._stale_epochs >= rung.patience
        return self.epoch >= rung.epochs or is_stale

    @property
    def seconds(self) -> float:
        """Wall clock so far, over all attempts."""
        return self._seconds_before + self._clock() - self._started_s

    def fit_batch(self) -> None:
        """Make one step."""
        problem, epoch, step = self.problem, self.epoch, self.step
        if self._order is None:
            order_rng = np.random.default_rng([*problem.seed, epoch])
            self._order = order_rng.permutation(len(problem.train))
        chosen = self._order[step * problem.batch_size : (step + 1) * problem.batch_size]
        sequence = np.random.SeedSequence([*problem.seed, epoch, step], spawn_key=(_BATCH_STREAM,))
        rng = np.random.default_rng(sequence)
        torch.manual_seed(int(rng.integers(2**63)))  # dropout
        rows = torch.from_numpy(chosen).to(self._images.device)
        images = self._augment(self._images[rows], rng)
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        with autocast(problem.device):
            logits = self._module(images.permute(0, 3, 1, 2))  # NHWC stays in place: channels last
        loss = nn.functional.cross_entropy(
            logits.float(), self._labels[rows], label_smoothing=LABEL_SMOOTHING
        )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._loss_sum += loss.detach() * len(chosen)
        self.step += 1

    def _learning_rate(self, step: int) -> float:
        problem = self.problem
        total = problem.rung.epochs * problem.steps
        done = self.epoch * problem.steps + step
        return learning_rate(done, total, problem.hyperparameters["learning_rate"])

    def finish_epoch(self) -> EpochResult:
        """Evaluate the epoch whose steps are all made, and turn to the next one.

        Raises:
            DivergedError: a loss is not finite.
        """
        problem = self.problem
        examples = min(len(problem.train), problem.steps * problem.batch_size)
        train_loss = float(self._loss_sum) / examples  # the epoch's first wait for the device
        self._check_finite("training", train_loss)
        selection_loss = accuracy = None
        if self._selection is not None:
            images, labels = self._selection
            logits = logits_of(self._module, images)
            selection_loss = float(nn.functional.cross_entropy(logits, labels))
            self._check_finite("selection", selection_loss)
            accuracy = float((logits.argmax(dim=1) == labels).double().mean())
        result = EpochResult(
            epoch=self.epoch,
            train_loss=train_loss,
            selection_loss=selection_loss,
            selection_accuracy=accuracy,
            learning_rate=self._learning_rate(problem.steps - 1),
            seconds=self.seconds - sum(entry.seconds for entry in self._curve),
        )
        self._curve.append(result)
        if self._is_better(result):
            self._best, self._stale_epochs = result, 0
            self._best_weights = extract_weights(self._module)
        else:
            self._stale_epochs += 1
        self.epoch, self.step, self._order = self.epoch + 1, 0, None
        self._loss_sum.zero_()
        return result

    def _is_better(self, result: EpochResult) -> bool:
        if self._best is None or result.selection_loss is None:
            return True
        return (
            self._best.selection_loss is None or result.selection_loss < self._best.selection_loss
        )

    def _check_finite(self, rows: str, loss: float) -> None:
        if not math.isfinite(loss):
            rate = self.problem.hyperparameters["learning_rate"]
            raise DivergedError(
                f"The {rows} loss is {loss} in epoch {self.epoch} at learning_rate {rate:g}.",
                "lower learning_rate",
            )

    def checkpoint(self) -> Checkpoint:
        """Return copies of everything that is needed to go on."""
        state = self._optimizer.state
        momentum = {
            key: np.array(state[tensor]["momentum_buffer"].cpu().numpy(), order="C")
            for key, tensor in stored_tensors(self._module).items()
            if tensor in state
        }
        return Checkpoint(
            epoch=self.epoch,
            step=self.step,
            loss_sum=float(self._loss_sum),
            stale_epochs=self._stale_epochs,
            seconds=self.seconds,
            curve=tuple(self._curve),
            best_epoch=None if self._best is None else self._best.epoch,
            weights=extract_weights(self._module),
            momentum=momentum,
            best_weights=dict(self._best_weights),
        )

    def result(self, stopped: StopReason | None) -> FitResult:
        """Return what the complete epochs came to."""
        best, selection = self._best, self.problem.selection
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
        )


class _Saving:
    """Decides when a checkpoint is due: often where saving is quick, at least once a minute."""

    def __init__(self, training: _Training, hooks: FitHooks) -> None:
        self._training, self._hooks = training, hooks
        self._last_s = hooks.clock()
        self._duration_s: float | None = None  # None before the first save
        self._unsaved_steps = 0

    def after_step(self) -> None:
        """Save within an epoch once a minute."""
        self._unsaved_steps += 1
        is_last = self._training.step == self._training.problem.steps
        if not is_last and self._hooks.clock() - self._last_s >= _SAVE_INTERVAL_S:
            self._save()

    def after_epoch(self) -> None:
        """Save after the first epoch, and after later ones unless that would take too long."""
        interval_s = 0.0
        if self._duration_s is not None:
            interval_s = min(_SAVE_INTERVAL_S, _SAVE_SHARE * self._duration_s)
        if self._hooks.clock() - self._last_s >= interval_s:
            self._save()

    def stop(self) -> None:
        """Save what would be lost."""
        if self._unsaved_steps:
            self._save()

    def _save(self) -> None:
        before_s = self._hooks.clock()
        self._hooks.save(self._training.checkpoint())
        self._last_s = self._hooks.clock()
        self._duration_s = self._last_s - before_s
        self._unsaved_steps = 0


def _optimizer(module: Network, weight_decay: float) -> torch.optim.SGD:
    """Return the optimiser; biases and batch norms are not decayed (arXiv:1812.01187, sec. 3.1)."""
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True)


def _augmentation(problem: FitProblem) -> Augmentation:
    genes, size = problem.hyperparameters, problem.architecture.input_size
    flip = bool(genes["flip"]) if "flip" in genes else flips_by_default(size)
    return Augmentation(genes["augmentation"], flip=flip, fill=problem.normalization.mean)
