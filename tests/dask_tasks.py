"""Tasks for Dask workers that are processes of their own."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import psutil


def slow_square(number: int) -> int:
    """Return the square of a number after a tenth of a second."""
    time.sleep(0.1)
    return number * number


def kept_bytes() -> int:
    """Return what stays of 200 MB in large blocks, with small ones between them, once freed."""
    np.ones(2**24, np.uint8)  # once it is freed, glibc would take such blocks from its heap
    process, small = psutil.Process(), []
    before: int = process.memory_info().rss
    large = []
    for _ in range(12):
        large.append(np.ones(2**24, np.uint8))
        small.append(bytearray(100_000))
    del large
    after: int = process.memory_info().rss
    return after - before


def fatal(number: int) -> int:
    """Kill the worker."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number
