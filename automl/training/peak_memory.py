"""Peak memory of a block of code."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from automl.training.heap import return_freed_memory

_CLEAR_PEAK = "5"  # see proc(5), /proc/pid/clear_refs
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(slots=True)
class PeakMemory:
    """Measurement that is there when the block has been left.

    Attributes:
        size_bytes: above the level before; None where it cannot be measured.
    """

    size_bytes: int | None = None


@contextmanager
def peak_memory(device: str) -> Iterator[PeakMemory]:
    """Measure the most memory that is in use during the block, above the level before it.

    On a GPU what torch has allocated; its caching allocator reserves more. On the CPU the resident
    set of the process, with what libraries load and generate at first use; other threads count too.
    A block that raises is not measured.

    Args:
        device: "cpu" or "cuda".
    """
    peak = PeakMemory()
    gc.collect()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.size_bytes = torch.cuda.max_memory_allocated() - before
        return
    return_freed_memory()
    resident = _clear_peak()
    yield peak
    if resident is not None:
        peak.size_bytes = max(0, _status_bytes("VmHWM") - resident)


def _clear_peak() -> int | None:
    """Start the high-water mark anew and return the resident bytes; None if that is not allowed."""
    try:
        _CLEAR_REFS.write_text(_CLEAR_PEAK)
        return _status_bytes("VmRSS")
    except OSError:  # no Linux, or a container that hides these files
        return None


def _status_bytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise FileNotFoundError(f"{_STATUS} has no {name}")
    return 1024 * int(found.group(1))
