from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from automl.training.heap import keep_freed_memory, return_freed_memory

PAGES = 1024  # of a block; a step has four
SCRIPT = f"""
import json, resource
import torch
from automl.training.heap import keep_freed_memory, return_freed_memory

def faults_of_a_step():
    page = resource.getpagesize()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.empty({PAGES} * page, dtype=torch.uint8) for _ in range(4)]
    for block in blocks:
        block[::page] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
kept = [faults_of_a_step() for _ in range(6)]
return_freed_memory()
print(json.dumps([*kept, faults_of_a_step()]))
"""


def test_steps_use_the_memory_that_others_have_freed_until_it_is_given_back() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    first, *others, last = json.loads(done.stdout)

    assert first >= 4 * PAGES  # pages that the kernel cleared
    assert others[-1] < PAGES / 4  # freed blocks lie side by side only after some steps
    assert last >= 3 * PAGES


@pytest.mark.parametrize("function", [keep_freed_memory, return_freed_memory])
def test_another_c_library_is_left_as_it_is(
    function: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())
    function()
