"""Memory that this machine has for a training."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import torch

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_LIMIT_FILES = ("memory.max", "memory/memory.limit_in_bytes")  # version 2, version 1


def training_capacity(device: str, processes: int) -> int | None:
    """Return the bytes that a training of this process may take, None if they cannot be told.

    On a GPU what is free, with what this process has reserved. On the CPU the process's share of
    the machine (physical memory, or the control group's limit where that is less) or what is left
    of its address space, whichever is less.

    Args:
        device: "cpu" or "cuda".
        processes: how many train on this machine at the same time.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) + torch.cuda.memory_reserved()
    pages = _pages()
    if pages is None:
        return None
    resident = pages[1]
    bounds = [machine_bytes() // processes - resident]
    left = address_space_left()
    if left is not None:
        bounds.append(left)
    return max(0, min(bounds))


def machine_bytes(cgroups: Path = _CGROUPS) -> int:
    """Return the memory of this machine, or of the control group it is confined to."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    texts = [file.read_text().strip() for name in _LIMIT_FILES if (file := cgroups / name).exists()]
    return min([physical, *(int(text) for text in texts if text.isdigit())])


def address_space_left() -> int | None:
    """Return the bytes that may still be mapped under RLIMIT_AS; None without such a limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _pages()
    if limit == resource.RLIM_INFINITY or pages is None:
        return None
    return max(0, limit - pages[0])


def _pages() -> tuple[int, int] | None:
    """Return the process's mapped and resident bytes, None where the kernel does not tell."""
    try:
        mapped, resident = (_PROC / "self" / "statm").read_text().split()[:2]
    except FileNotFoundError:
        return None
    size = os.sysconf("SC_PAGE_SIZE")
    return size * int(mapped), size * int(resident)
