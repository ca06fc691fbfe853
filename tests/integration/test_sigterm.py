"""A worker's process that is asked to stop in the middle of an epoch."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from automl.domain.settings import Settings
from automl.machine.process import run_step
from automl.runs import opening
from automl.runs.context import StepContext
from automl.runs.run_lease import RunLease
from automl.steps import prepare
from automl.training.checkpoint import Checkpoint
from tests.digits import study_of_digits
from tests.quiet import Quiet

WITHIN = timedelta(seconds=5)


@pytest.mark.parametrize("share", [0.3, pytest.param(0.5, marks=pytest.mark.soak)])
def test_its_checkpoint_of_the_step_it_is_at_is_there_within_five_seconds(
    tmp_path: Path, share: float
) -> None:
    spec = study_of_digits(
        tmp_path,
        rows=1700,
        data={"source": str(tmp_path / "rows.npz"), "image_size": 128},  # seconds per epoch
        search={
            "time_limit": "5m", "max_trials": 1, "workers": 1, "limits": {"parameters": 10**6},
        },
    )  # fmt: skip
    context = StepContext.open(Settings(str(tmp_path / "home")), spec, "one", "test")
    ends_s: list[float] = []  # of epochs
    asked: list[datetime] = []

    def on_line(line: str) -> None:
        if re.search(r"epoch \d+:", line):
            ends_s.append(time.monotonic())

    def stop() -> bool:
        if not asked and len(ends_s) >= 2:
            length_s, since_s = ends_s[1] - ends_s[0], time.monotonic() - ends_s[-1]
            if share * length_s <= since_s <= (share + 0.2) * length_s:
                asked.append(datetime.now(UTC))
        return bool(asked)

    with RunLease(context):
        opening.open_run(context, prepare.prepare(context, Quiet().items).id)
        ended = run_step(
            "run_worker",
            {
                "spec": spec.model_dump(mode="json", by_alias=True),
                "run": "one",
                "worker": 0,
                "origin": "test",
            },
            env={**os.environ, "AUTOML_HOME": context.settings.home},
            timeout_s=120,
            on_line=on_line,
            stop=stop,
        )

    assert (ended.stopped, ended.signal) == (True, None)
    files = context.store.list(context.keys.trial(0, 1).checkpoints)
    newest = max(files, key=lambda file: file.modified)
    assert asked[0] <= newest.modified <= asked[0] + WITHIN
    assert Checkpoint.from_bytes(context.store.get(newest.key).data).epoch >= 2
