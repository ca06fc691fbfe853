"""The device that trains, and the settings that make a training repeatable on it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from automl.training.capacity import address_space_left

# found by training under address-space limits with PyTorch 2.13; 3 MB at most were left then
_VAGUE = re.compile(r"could not create a (primitive|memory object)|can't start new thread")
_VAGUE_ERRORS = (RuntimeError, ImportError, SystemError)
_EXHAUSTED_BYTES = 2**26  # what failed to fit is freed in part before the error is looked at


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


def seed_dropout(device: str, seed: int) -> None:
    """Seed the generator that dropout draws from; `torch.manual_seed` seeds those of all devices.

    Args:
        device: "cpu" or "cuda", the current one.
        seed: 0 to 2**63 - 1.
    """
    if device == "cuda":
        torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


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
    """Return whether an allocation failed, on the host or on the device.

    Where memory runs out within a library, the error often does not say so: oneDNN "could not
    create a primitive", Python cannot start a thread, the loader fails to map a module. Such an
    error counts if next to nothing is left of the process's address space.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # The CPU allocator raises a plain RuntimeError (c10/core/impl/alloc_cpu.cpp) that names it.
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
        return True
    if isinstance(error, RuntimeError) and not _VAGUE.search(str(error)):
        return False
    return isinstance(error, _VAGUE_ERRORS) and _is_address_space_exhausted()


def _is_address_space_exhausted() -> bool:
    try:
        left = address_space_left()
    except MemoryError:
        return True
    return left is not None and left < _EXHAUSTED_BYTES
