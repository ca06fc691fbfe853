"""A training whose process is killed equals, in the end, one that never was: bit for bit."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.training_child import EPOCHS, STEPS, Kill, train

RANDOM_STEPS = 6
SOAK_STEPS = 100


NOWHERE = Kill()


def run(folder: Path, kill: Kill = NOWHERE) -> int | None:
    """Run a training in a process of its own, and return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training_child"])
    process = context.Process(target=train, args=(folder, kill))
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(folder) == 0
    return (folder / "weights").read_bytes()


@pytest.mark.parametrize("saves", range(1, EPOCHS + 1))
def test_a_kill_at_a_checkpoint_changes_nothing(
    tmp_path: Path, expected: bytes, saves: int
) -> None:
    assert run(tmp_path, Kill(after_save=saves)) == -signal.SIGKILL
    assert run(tmp_path) == 0
    assert (tmp_path / "weights").read_bytes() == expected


@pytest.mark.parametrize(
    "draw",
    [
        *range(RANDOM_STEPS),
        *(pytest.param(draw, marks=pytest.mark.soak) for draw in range(RANDOM_STEPS, SOAK_STEPS)),
    ],
)
def test_a_kill_at_a_random_step_changes_nothing(
    tmp_path: Path, expected: bytes, draw: int
) -> None:
    step = int(np.random.default_rng(draw).integers(EPOCHS * STEPS))

    assert run(tmp_path, Kill(before_step=step)) == -signal.SIGKILL
    assert run(tmp_path) == 0
    assert (tmp_path / "weights").read_bytes() == expected


def test_a_training_that_is_killed_again_and_again_ends_all_the_same(
    tmp_path: Path, expected: bytes
) -> None:
    for _ in range(EPOCHS):
        assert run(tmp_path, Kill(after_save=1)) == -signal.SIGKILL

    assert run(tmp_path) == 0
    assert (tmp_path / "weights").read_bytes() == expected
