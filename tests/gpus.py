"""Pretended GPUs: a command `nvidia-smi` that lists what a test wants."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from automl.machine.gpus.host import Gpu

GIB = 2**30
NAME = "Pretended 40GB"


def pretended_gpus(count: int, memory_bytes: int | None = 40 * GIB) -> list[Gpu]:
    return [Gpu(index, uuid_of(index), NAME, memory_bytes) for index in range(count)]


def uuid_of(index: int) -> str:
    return f"GPU-{index:08x}-0000-4000-8000-000000000000"


def listing(gpus: Sequence[Gpu]) -> str:
    """Return what `nvidia-smi` says of the GPUs."""
    lines = []
    for gpu in gpus:
        memory = "[N/A]" if gpu.memory_bytes is None else str(gpu.memory_bytes // 2**20)
        mode = "Enabled" if gpu.is_partitioned else "Disabled"
        lines.append(f"{gpu.index}, {gpu.uuid}, {gpu.name}, {memory}, {mode}\n")
    return "".join(lines)


def machine_with(
    folder: Path, gpus: Sequence[Gpu], says: str | None = None, exit_code: int = 0
) -> Mapping[str, str]:
    """Return variables for processes of a machine with these GPUs.

    Args:
        folder: for the command and the locks.
        gpus: what the command lists.
        says: what it says instead.
        exit_code: with which it ends.
    """
    commands = folder / "commands"
    commands.mkdir(parents=True, exist_ok=True)
    answer = folder / "answer.txt"
    answer.write_text(listing(gpus) if says is None else says)
    command = commands / "nvidia-smi"
    command.write_text(f"#!/bin/sh\ncat '{answer}'\nexit {exit_code}\n")
    command.chmod(0o755)
    return {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "AUTOML_GPU_LOCKS": str(folder / "locks"),
    }
