"""Whether a training computes in bfloat16, and whether that is faster on this machine."""

from __future__ import annotations

import logging
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum

import torch

from automl.morphism.architecture import Architecture
from automl.training.device import cpu_threads
from automl.training.module import Normalization, build_module, initial_weights, load_weights

_FASTER = 1.15  # so much faster bfloat16 has to be
_ROUNDS = 5
_BATCH_SIZE = 64

log = logging.getLogger(__name__)


class Precision(StrEnum):
    """What convolutions and dense layers compute in; weights and statistics stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def autocast(device: str, precision: Precision) -> AbstractContextManager[None]:
    """Return a context for the forward pass."""
    if precision is Precision.FLOAT32:
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


def has_bfloat16_units() -> bool:
    """Return whether this CPU multiplies bfloat16 itself (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(device: str, architecture: Architecture, threads: int) -> Precision:
    """Return the precision in which this machine trains the architecture faster.

    CUDA devices that know bfloat16 always use it. CPUs with units for it are timed for a fraction
    of a second; others emulate it, slowly.

    Args:
        device: "cpu" or "cuda".
        architecture: a typical one.
        threads: CPU threads.
    """
    if device == "cuda":
        return Precision.BFLOAT16 if torch.cuda.is_bf16_supported() else Precision.FLOAT32
    if not has_bfloat16_units():
        return Precision.FLOAT32
    ratio = _speed_up(architecture, threads)
    log.info("bfloat16 trains %.2f times as fast as float32 on this CPU", ratio)
    return Precision.BFLOAT16 if ratio >= _FASTER else Precision.FLOAT32


def _speed_up(architecture: Architecture, threads: int) -> float:
    """Return the median ratio of the times of a training step, in turns, on the CPU."""
    channels, size = architecture.input_channels, architecture.input_size
    normalization = Normalization((127.0,) * channels, (64.0,) * channels)
    module = build_module(architecture, normalization)
    load_weights(module, initial_weights(architecture, (0,)))
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.zeros((_BATCH_SIZE, size, size, channels), dtype=torch.uint8)
    images = images.permute(0, 3, 1, 2)

    def seconds(precision: Precision) -> float:
        start = time.perf_counter()
        with autocast("cpu", precision):
            loss = module(images).float().square().mean()
        loss.backward()
        return time.perf_counter() - start

    with cpu_threads(threads):
        for precision in Precision:
            seconds(precision)
        ratios = [seconds(Precision.FLOAT32) / seconds(Precision.BFLOAT16) for _ in range(_ROUNDS)]
    return statistics.median(ratios)
