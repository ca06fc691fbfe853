"""`python -m tests.measured_step STEP`: run a step as its supervisors do, and tell what it took.

Its payload comes by standard input, as JSON. The peak is that of the largest of all processes which
the step has started and waited for, and of its own; this process is small, since a process begins
with the peak of the one that it was forked from.
"""

from __future__ import annotations

import json
import os
import resource
import sys

from automl.machine.process import run_step


def main(step: str) -> None:
    """Run a step; print its result or failure, what it has said, and the largest peak in MB."""
    said: list[str] = []
    ended = run_step(
        step,
        json.load(sys.stdin),
        env=os.environ,
        timeout_s=None,
        on_line=said.append,
        stop=lambda: False,
    )
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    document = {
        "result": ended.result,
        "failure": str(ended.failure or ""),
        "said": said,
        "peak_mb": peak_kib / 1024,
    }
    print(json.dumps(document))  # noqa: T201 - its result


if __name__ == "__main__":
    main(sys.argv[1])
