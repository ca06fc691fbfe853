"""Gradients of a batch, whose parts are computed at the same time by copies of the module."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch
from torch import nn

from automl.training.capacity import address_space_left
from automl.training.compilation import CompiledPasses
from automl.training.device import seed_dropout
from automl.training.module import Dropout, Network
from automl.training.precision import autocast
from automl.training.problem import FitProblem

LABEL_SMOOTHING = 0.1
_LEAST_EXAMPLES = 32  # of a copy: batch norms take their statistics from these


class Replicas:
    """A module and copies of it, each of which computes a part of a batch on threads of its own.

    Convolutions on maps as small as these leave much of a second thread idle: two copies with a
    thread each make more steps than one with two. Sums are made in a fixed order, so that a step
    repeats bit for bit with the same number of threads. The copies share the module's parameters;
    each normalises by its own part of the batch, as in arXiv:1705.08741, and running statistics are
    the means of all copies'. Where memory has run out or the address space is limited, one copy
    works alone: others need gradients, and their threads stacks and arenas.

    Args:
        module: the problem's network in the mode that it trains in, on its device.
        problem: says on how many CPU threads all copies work together, and how they compute.
        micro_batch: examples of a forward pass, fewer than of a step where memory is short.
        compiled: the module's passes of whole batches, where one copy works alone.
    """

    def __init__(
        self,
        module: Network,
        problem: FitProblem,
        micro_batch: int,
        compiled: CompiledPasses | None = None,
    ) -> None:
        self._device, self._precision = problem.device, problem.precision
        self._batch_size, self._micro_batch = problem.batch_size, micro_batch
        threads, is_short = problem.threads, micro_batch < problem.batch_size
        count = 1 if is_short else most_copies(self._device, threads, self._batch_size)
        self._modules = [module, *(_sharing(module) for _ in range(count - 1))]
        self._parameters = [
            [p for p in one.parameters() if p.requires_grad] for one in self._modules
        ]
        self._statistics = [_running_statistics(one) for one in self._modules]
        self._generators = [torch.Generator() for _ in self._modules] if count > 1 else []
        for one, generator in zip(self._modules, self._generators, strict=False):
            for layer in one.modules():
                if isinstance(layer, Dropout):
                    layer.generator = generator
        self._compiled = compiled
        self._pool: ThreadPoolExecutor | None = None
        if count > 1:
            self._pool = ThreadPoolExecutor(
                count, "replica", torch.set_num_threads, (max(1, threads // count),)
            )

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def seed(self, seed: int) -> None:
        """Seed dropout, every copy's by a number of its own.

        Args:
            seed: 0 to 2**63 - 1.
        """
        if not self._generators:
            seed_dropout(self._device, seed)
        for index, generator in enumerate(self._generators):
            generator.manual_seed((seed + index) % 2**63)

    def backward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Leave the gradients of the mean loss in the module, which has none yet.

        Args:
            images: (B, C, S, S), uint8 or float32.
            labels: int64 (B,).

        Returns:
            The sum of the losses, float32 ().
        """
        used = min(len(self._modules), max(1, len(labels) // _LEAST_EXAMPLES))
        parts = _parts(len(labels), -(-self._micro_batch // used))

        def compute(index: int) -> torch.Tensor:
            module = self._modules[index]
            losses = (self._loss(module, images, labels, p) for p in parts[index::used])
            return functools.reduce(torch.add, losses)

        losses = self._together(compute, used)
        if len(self._modules) > 1:
            self._gather(used)
        return functools.reduce(torch.add, losses)

    def _loss(
        self, module: Network, images: torch.Tensor, labels: torch.Tensor, part: slice
    ) -> torch.Tensor:
        """Add the gradients of one part to a copy's, and return the sum of its losses."""
        is_whole = len(labels) == self._batch_size
        passes = self._compiled if self._compiled is not None and is_whole else module
        with autocast(self._device, self._precision):
            logits = passes(images[part])
        loss = nn.functional.cross_entropy(
            logits.float(), labels[part], label_smoothing=LABEL_SMOOTHING, reduction="sum"
        )
        loss.backward(torch.full_like(loss, 1 / len(labels)))  # type: ignore[no-untyped-call]
        return loss.detach()

    def _together(self, compute: Callable[[int], torch.Tensor], used: int) -> list[torch.Tensor]:
        """Return what each of the first `used` copies computes.

        Where one fails the others are waited for, so that none goes on in the background.
        """
        if self._pool is None:
            return [compute(index) for index in range(used)]
        futures: list[Future[torch.Tensor]] = []
        try:
            for index in range(used):
                futures.append(self._pool.submit(compute, index))
        finally:
            wait(futures)
        return [future.result() for future in futures]

    def _gather(self, used: int) -> None:
        """Sum the gradients of the copies in the module, and average the running statistics."""
        own = _gradients(self._parameters[0])
        for parameters in self._parameters[1:used]:
            torch._foreach_add_(own, _gradients(parameters))
            for parameter in parameters:
                parameter.grad = None
        mean, *others = self._statistics
        if mean:
            for statistics in others[: used - 1]:
                torch._foreach_add_(mean, statistics)
            torch._foreach_div_(mean, used)
            for statistics in others:
                torch._foreach_copy_(statistics, mean)


def most_copies(device: str, threads: int, batch_size: int) -> int:
    """Return between how many copies of a module a batch is divided.

    Args:
        device: "cpu" or "cuda".
        threads: CPU threads of all copies together.
        batch_size: examples of a step.
    """
    if device == "cuda" or address_space_left() is not None:
        return 1
    return max(1, min(threads, batch_size // _LEAST_EXAMPLES))


def _sharing(module: Network) -> Network:
    """Return a copy of a module that has the same parameters, but gradients of its own."""
    shared = {
        id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in module.parameters()
    }
    return copy.deepcopy(module, shared)


def _running_statistics(module: Network) -> list[torch.Tensor]:
    """Return the statistics that forward passes of training change."""
    return [
        statistic
        for layer in module.modules()
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.training
        for statistic in (layer.running_mean, layer.running_var)
        if statistic is not None
    ]


def _gradients(parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    gradients = []
    for parameter in parameters:
        assert parameter.grad is not None
        gradients.append(parameter.grad)
    return gradients


def _parts(count: int, most: int) -> list[slice]:
    """Return slices of about equal length, `most` at most, that cover `count` examples."""
    parts = -(-count // most)
    ends = [count * index // parts for index in range(parts + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]
