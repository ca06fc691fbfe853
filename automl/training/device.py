"""The device that trains, and the settings that make a training repeatable on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def choose_device() -> str:
    """Return "cuda" where a CUDA device is usable, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_type() -> str:
    """Return what kind of device trains, for the study log: "cpu" or the GPU's product name."""
    return "cpu" if choose_device() == "cpu" else torch.cuda.get_device_name()


@contextmanager
def repeatable(device: str) -> Iterator[None]:
    """Keep torch's global generators untouched and, on the CPU, refuse undeterministic kernels.

    CUDA keeps its fast kernels: there the batches and their augmentation repeat, but sums may
    differ in the last bits.
    """
    before = torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic  # its attributes are properties without types
    filled = settings.fill_uninitialized_memory
    devices = [] if device == "cpu" else [torch.cuda.current_device()]
    with torch.random.fork_rng(devices=devices):
        try:
            settings.fill_uninitialized_memory = False  # slow, for debugging
            torch.use_deterministic_algorithms(device == "cpu")
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            settings.fill_uninitialized_memory = filled


@contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """Let torch use `threads` CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on the host or on the device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU allocator raises a plain RuntimeError (c10/core/CPUAllocator) that names it.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
