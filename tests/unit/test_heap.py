from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median

import pytest

from automl.training.heap import keep_freed_memory, return_freed_memory

PAGES, BLOCKS, STEPS = 1024, 4, 24  # pages of a block, blocks of a step, steps
SCRIPT = f"""
import json, resource
import torch
from automl.training.heap import keep_freed_memory, return_freed_memory

def faults_of_a_step():
    page = resource.getpagesize()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.empty({PAGES} * page, dtype=torch.uint8) for _ in range({BLOCKS})]
    for block in blocks:
        block[::page] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
kept = [faults_of_a_step() for _ in range({STEPS})]
return_freed_memory()
print(json.dumps([*kept, faults_of_a_step()]))
"""


def test_steps_use_the_memory_that_others_have_freed_until_it_is_given_back() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    first, *others, last = json.loads(done.stdout)

    assert first >= BLOCKS * PAGES  # pages that the kernel cleared
    # A lasting object that is put between freed blocks makes a step clear one block anew, now and
    # then; without the setting most steps clear one, or all of them.
    assert median(others) < PAGES / 4
    assert last >= (BLOCKS - 1) * PAGES


@pytest.mark.parametrize("function", [keep_freed_memory, return_freed_memory])
def test_another_c_library_is_left_as_it_is(
    function: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())
    function()
