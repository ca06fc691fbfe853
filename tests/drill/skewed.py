"""Start of a program with a shifted clock: `python skewed.py FILE PROGRAM …`.

If the file is there, its text is by how many seconds the clock of the program, and of all that it
starts, is ahead. What it starts with few variables is shifted by `skew/sitecustomize.py`.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

VARIABLE = "AUTOML_DRILL_CLOCK"  # reaches steps: their environment keeps `AUTOML_`
_SITE = Path(__file__).parent / "skew"


def shifted(seconds: float) -> dict[str, str]:
    """Return the variables of a process whose clock is ahead."""
    (library,) = [
        str(file.locate())
        for file in importlib.metadata.files("libfaketime") or ()
        if file.name == "libfaketime.so.1"
    ]
    path = os.pathsep.join(filter(None, [str(_SITE), os.environ.get("PYTHONPATH")]))
    return {
        "LD_PRELOAD": library,
        "FAKETIME": f"{seconds:+g}",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        "PYTHONPATH": path,
        VARIABLE: f"{seconds:+g}",
    }


if __name__ == "__main__":
    skew = Path(sys.argv[1])
    more = shifted(float(skew.read_text())) if skew.exists() else {}
    os.execve(sys.argv[2], sys.argv[2:], {**os.environ, **more})  # noqa: S606 - no shell
