"""Eviction of a task: a real SIGTERM, as Airflow's task runner passes it on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EVICTED = """
import os, signal, sys
from airflow.sdk.exceptions import AirflowRescheduleException
from automl_airflow.operator import StepOperator
from tests.operators import CHECKED, context

task = StepOperator(task_id="s", step="run_worker", module="tiny_step", checked=CHECKED, worker=0)
signal.signal(signal.SIGTERM, lambda *_: task.on_kill())  # as Airflow's task runner does
try:
    task.execute(context())
except AirflowRescheduleException:
    print("rescheduled", flush=True)
"""


def test_a_task_that_gets_sigterm_is_rescheduled(
    child: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_HOME", str(tmp_path))
    monkeypatch.setenv("AUTOML_TEST_PLAN", "sleep")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with subprocess.Popen(
        [sys.executable, "-c", EVICTED], stdout=subprocess.PIPE, text=True
    ) as task:
        assert task.stdout is not None
        lines = iter(task.stdout.readline, "")
        assert any("pid " in line for line in lines)
        task.send_signal(signal.SIGTERM)
        assert [line for line in lines if line.startswith("rescheduled")]
    assert task.returncode == 0
