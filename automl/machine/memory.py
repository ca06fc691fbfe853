"""Memory that this process may use."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from automl.machine.cores import group_folders

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_FILES = ("memory.max", "memory.limit_in_bytes")  # version 2, version 1


def usable_bytes(cgroups: str | None = None, root: Path = _CGROUPS) -> int:
    """Return the bytes that this process may still take, 0 or more.

    They are the least of what the machine has free, of what is left of its control groups' limits
    for this process, and of what its address space (RLIMIT_AS) leaves. Others may take some of it
    meanwhile.

    Args:
        cgroups: text of `/proc/self/cgroup`; by default that of this process.
        root: where the control groups are mounted.
    """
    mapped, resident = _pages()
    bounds = [_free_bytes()]
    bounds += [limit - resident for limit in _group_limits(cgroups, root)]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        bounds.append(limit - mapped)
    return max(0, min(bounds))


def _group_limits(cgroups: str | None, root: Path) -> list[int]:
    """Return the limits of the process's control groups, and of all above them."""
    texts = [
        (folder / name).read_text().strip()
        for folder in group_folders("memory", cgroups, root)
        for name in _FILES
        if (folder / name).is_file()
    ]
    return [int(text) for text in texts if text.isdigit()]


def _free_bytes() -> int:
    """Return the bytes that the machine can give without swapping, all of them if it does not say.

    /proc/meminfo estimates them as MemAvailable (proc(5)).
    """
    for line in (_PROC / "meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return 1024 * int(value.split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _pages() -> tuple[int, int]:
    """Return the process's mapped and resident bytes."""
    mapped, resident = (_PROC / "self" / "statm").read_text().split()[:2]
    size = os.sysconf("SC_PAGE_SIZE")
    return size * int(mapped), size * int(resident)
