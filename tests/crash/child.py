"""What a process of the small night does; imported once, before the processes are forked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401 - by the first optimiser otherwise, in each process anew

import automl.runs.worker
import automl.steps.evaluate
import automl.steps.export
import automl.steps.final_fit
import automl.steps.open_run
import automl.tracks.image.prepare  # noqa: F401
from automl.domain.settings import Settings
from automl.steps.dispatch import run_named_step
from benchmarks.observed_home import install, observed_home
from tests.crash.points import Crash, CrashPoint


def run_step(
    settings: Settings, step: str, payload: dict[str, Any], crash: Crash | None, trace: Path
) -> object:
    """Run `step` on the home of `settings` with its storage operations counted."""
    logging.getLogger("distributed").setLevel(logging.WARNING)
    install(CrashPoint(trace, crash))
    return run_named_step(step, payload, observed_home(settings))
