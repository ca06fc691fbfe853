"""Preparations that are asked to stop: they end in time, and leave nothing that runs."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from automl.domain.settings import Settings
from automl.machine.process import GRACE_S, run_step
from automl.runs.context import StepContext
from automl.steps.study_file import study_spec

ROWS = 80  # each takes some tenths of a second
BUSY_S = 3.5  # of CPU time: more than a process takes that only starts


def write_large(folder: Path) -> None:
    """Write images of 49 million pixels, which are small files, and all different."""
    for number in range(ROWS):
        image = Image.new("1", (7000, 7000))
        image.putpixel((number, 0), 1)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        place = folder / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(buffer.getvalue())


def cpu_s(process: psutil.Process) -> float:
    """Return the seconds of CPU time that a process has taken; of one that has ended 0."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


@pytest.mark.parametrize("size", [8, 1024])  # few tasks, done in the step; many, in its helpers
def test_preparation_ends_within_the_grace_of_a_stop(tmp_path: Path, size: int) -> None:
    write_large(tmp_path / "rows")
    data = {"source": str(tmp_path / "rows"), "image_size": size}
    spec = study_spec({"name": "large", "task": "image_classification", "data": data})
    context = StepContext.open(Settings(str(tmp_path / "home")), spec, "one", "test")
    before, asked_s = set(psutil.Process().children()), list[float]()
    seen: set[psutil.Process] = set()

    def stop() -> bool:
        # Dask renames processes, the step's included where a test has asked it to
        steps = set(psutil.Process().children()) - before
        helpers = [helper for step in steps for helper in step.children(recursive=True)]
        seen.update([*steps, *helpers])
        busy = [p for p in [*steps, *helpers] if cpu_s(p) > BUSY_S]
        if not asked_s and busy:
            asked_s.append(time.monotonic())
        return bool(asked_s)

    ended = run_step(
        "prepare",
        {"spec": spec.model_dump(mode="json", by_alias=True), "run": "one", "origin": "test"},
        env={**os.environ, "AUTOML_HOME": context.settings.home},
        timeout_s=300,
        on_line=lambda _: None,
        stop=stop,
    )

    assert asked_s, f"it ended before it was asked to stop: {ended}"
    assert time.monotonic() - asked_s[0] < GRACE_S + 1
    assert (ended.stopped, ended.signal) == (True, None)  # it was not killed
    assert ended.failure is not None
    assert ended.failure.retryable
    assert "asked to stop" in ended.failure.message
    _, alive = psutil.wait_procs(list(seen), timeout=10)
    assert alive == []
