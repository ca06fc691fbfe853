"""Tasks for Dask workers that are processes of their own."""

from __future__ import annotations

import os
import signal
import time


def slow_square(number: int) -> int:
    """Return the square of a number after a tenth of a second."""
    time.sleep(0.1)
    return number * number


def fatal(number: int) -> int:
    """Kill the worker."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number
