from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
import torch

from automl.training.heap import keep_freed_memory, return_freed_memory

PAGES = 4096  # of the blocks
BLOCK = PAGES * resource.getpagesize()


def faults_of_a_step() -> int:
    """Return how many pages the kernel clears for four blocks, which are then freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.empty(BLOCK, dtype=torch.uint8) for _ in range(4)]
    for block in blocks:
        block[:: resource.getpagesize()] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_step_uses_the_memory_that_others_have_freed() -> None:
    keep_freed_memory()
    for _ in range(5):  # freed blocks lie side by side only after some
        faults_of_a_step()

    assert faults_of_a_step() < PAGES / 4


def test_kept_memory_is_given_back_on_demand() -> None:
    keep_freed_memory()
    faults_of_a_step()
    return_freed_memory()

    assert faults_of_a_step() >= 3 * PAGES


@pytest.mark.parametrize("function", [keep_freed_memory, return_freed_memory])
def test_another_c_library_is_left_as_it_is(
    function: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())
    function()
