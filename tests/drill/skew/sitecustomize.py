"""Python's start where a clock is shifted: a step lacks the variables that shift it.

libfaketime reads them when a program begins, so that the program begins once more.
"""

import os
import sys

if (shift := os.environ.get("AUTOML_DRILL_CLOCK")) and "FAKETIME" not in os.environ:
    own = {"DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    os.execve(  # noqa: S606 - no shell
        sys.executable,
        [sys.executable, *sys.orig_argv[1:]],
        {**os.environ, **own, "FAKETIME": shift},
    )
