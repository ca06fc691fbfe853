"""Precision of a training: bfloat16 where that is faster on this machine."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from automl.morphism.architecture import Architecture
from automl.morphism.memory import Precision
from automl.training.device import cpu_threads
from automl.training.initialization import initial_weights
from automl.training.module import Normalization, build_module, load_weights, place

_FASTER = 1.15  # so much faster bfloat16 has to be
_ROUNDS = 7
_TIMED_STEPS = 5
_ENOUGH_S = 3.0  # of timed steps; what takes seconds is disturbed less, and would take a minute
_BATCH_SIZE = 64

log = logging.getLogger(__name__)

__all__ = ["Precision", "autocast", "choose_precision", "has_bfloat16_units", "step_seconds"]


def autocast(device: str, precision: Precision) -> AbstractContextManager[None]:
    """Return a context for the forward pass."""
    if precision is Precision.FLOAT32:
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


def has_bfloat16_units() -> bool:
    """Return whether this CPU multiplies bfloat16 itself (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(device: str, architecture: Architecture) -> Precision:
    """Return the precision in which this machine trains the architecture faster.

    CUDA devices that know bfloat16 always use it. CPUs with units for it are timed for a fraction
    of a second, on one thread in its own processor time, so that two runs on one machine decide
    alike whatever else it does; others emulate it, slowly.

    Args:
        device: "cpu" or "cuda".
        architecture: a typical one.
    """
    if device == "cuda":
        return Precision.BFLOAT16 if torch.cuda.is_bf16_supported() else Precision.FLOAT32
    if not has_bfloat16_units():
        return Precision.FLOAT32
    ratio = _speed_up(architecture)
    log.info("bfloat16 trains %.2f times as fast as float32 on this CPU", ratio)
    return Precision.BFLOAT16 if ratio >= _FASTER else Precision.FLOAT32


def step_seconds(
    device: str, architecture: Architecture, precision: Precision, threads: int, frozen: int = 0
) -> float:
    """Return the least seconds of a forward and backward pass of a batch of 64.

    Other work on the machine makes single passes several times as slow, above all those of several
    threads, which wait for each other. The least of them is the network's own.

    Args:
        device: "cpu" or "cuda".
        architecture: the network.
        precision: what it computes in.
        threads: CPU threads.
        frozen: how many of its first nodes are not trained.
    """
    step = _step(device, architecture, frozen=frozen)
    with cpu_threads(threads):
        step(precision)
        return least_seconds(lambda: step(precision))


def least_seconds(step: Callable[[], float]) -> float:
    """Return the least of a few calls; of fewer where they take seconds.

    Args:
        step: returns the seconds that it took.
    """
    least, spent_s = math.inf, 0.0
    for _ in range(_TIMED_STEPS):
        took_s = step()
        least, spent_s = min(least, took_s), spent_s + took_s
        if spent_s >= _ENOUGH_S:
            break
    return least


def _speed_up(architecture: Architecture) -> float:
    """Return the ratio of the least processor times of a training step on one CPU thread."""
    step = _step("cpu", architecture, time.thread_time)
    least = dict.fromkeys(Precision, math.inf)
    with cpu_threads(1):
        for precision in Precision:
            step(precision)
        for _ in range(_ROUNDS):
            for precision in Precision:
                least[precision] = min(least[precision], step(precision))
    return least[Precision.FLOAT32] / least[Precision.BFLOAT16]


def _step(
    device: str,
    architecture: Architecture,
    clock: Callable[[], float] = time.perf_counter,
    frozen: int = 0,
) -> Callable[[Precision], float]:
    """Return a call that makes a forward and a backward pass, and returns the seconds it took."""
    channels, size = architecture.input_channels, architecture.input_size
    normalization = Normalization((127.0,) * channels, (64.0,) * channels)
    module = build_module(architecture, normalization)
    load_weights(module, initial_weights(architecture, (0,)))
    place(module, device, frozen)
    images = torch.zeros((_BATCH_SIZE, size, size, channels), dtype=torch.uint8, device=device)
    images = images.permute(0, 3, 1, 2)

    def seconds(precision: Precision) -> float:
        start = clock()
        with autocast(device, precision):
            loss = module(images).float().square().mean()
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    return seconds
