"""`python -m tests.limited_child STEP`: `python -m automl.steps STEP` with little address space.

`SPARE_MB` says how many megabytes the process may map beyond what its modules take.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch
import torch._dynamo  # loaded by the first optimiser otherwise

from automl.steps import dispatch  # noqa: F401 - loads what steps need
from automl.steps.__main__ import main


def mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads that OpenMP cannot start would end the process
    torch.ones(64, 64) @ torch.ones(64, 64)
    limit = mapped_bytes() + int(os.environ["SPARE_MB"]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.exit(main(sys.argv[1:]))
