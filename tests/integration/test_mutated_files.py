"""Mutants of real files: each is read, or refused with a reason, within bounds and in silence."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.mutated_child import MOST_CPU_S

MOST_MB = 600


@pytest.mark.parametrize("files", [600, pytest.param(100_000, marks=pytest.mark.soak)])
@pytest.mark.timeout(0)
def test_a_mutant_is_read_or_refused_with_a_reason(files: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", "tests.mutated_child", "0", str(files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"it ended among the mutants from {lines[-1:]}: {done.stderr}"
    assert done.stderr == ""  # neither Pillow nor a library below it says anything
    found = json.loads(lines[-1])
    print(found)  # noqa: T201 - figures of the soak
    assert found["wrong"] == []
    assert sum(found["counts"].values()) == files
    assert found["peak_mb"] < MOST_MB
    assert found["slowest_cpu_s"] < MOST_CPU_S
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        assert min(found["counts"][f"{kind} {end}"] for end in ("read", "refused")) > files / 200
