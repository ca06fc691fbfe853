"""What `automl doctor` finds: settings, store, clock, devices, and a remedy for each trouble."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from automl.errors import AutoMLError
from automl.steps.settings import Settings
from automl.storage.open import open_store
from automl.storage.probe import probe_conditional_writes

_SKEW_S = 60.0
_FREE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    ok: bool
    found: str
    remedy: str = ""
    exit_code: int = 2


def examine(home: str | None) -> dict[str, Any]:
    """Return what was found; `ok` is false where something needs doing."""
    findings = [*_home(home), _devices(), _airflow()]
    bad = [finding for finding in findings if not finding.ok]
    return {
        "schema": 1,
        "ok": not bad,
        "exit_code": bad[0].exit_code if bad else 0,
        "checks": [
            {"check": f.check, "ok": f.ok, "found": f.found, "remedy": f.remedy} for f in findings
        ],
    }


def _home(home: str | None) -> list[Finding]:
    try:
        settings = Settings.from_environment(home=home)
        store = open_store(settings.home)
        started_s = time.monotonic()
        probe_conditional_writes(store)
        probe_s = time.monotonic() - started_s
        skew_s = abs((store.now() - datetime.now(UTC)).total_seconds())
    except AutoMLError as error:
        return [
            Finding(
                "home", ok=False, found=error.message, remedy=error.hint, exit_code=error.exit_code
            )
        ]
    findings = [
        Finding("home", ok=True, found=store.uri),
        Finding(
            "conditional writes", ok=True, found=f"obeyed, {probe_s * 1000:.0f} ms for the probe"
        ),
        Finding(
            "clock",
            ok=skew_s < _SKEW_S,
            found=f"{skew_s:.1f} s from the store's clock",
            remedy="" if skew_s < _SKEW_S else "synchronise this machine's clock",
        ),
    ]
    if not settings.home.startswith("s3://"):
        free = shutil.disk_usage(_existing(Path(settings.home))).free
        remedy = "" if free >= _FREE_BYTES else "free some space or move AUTOML_HOME"
        findings.append(
            Finding(
                "space", ok=free >= _FREE_BYTES, found=f"{free / 2**30:.1f} GiB free", remedy=remedy
            )
        )
    return findings


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _devices() -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0))
    gpus = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(gpus)) or "no GPU"
    return Finding(
        "devices", ok=True, found=f"{cores} CPU cores, {names}, torch {torch.__version__}"
    )


def _airflow() -> Finding:
    try:
        version = importlib.metadata.version("apache-airflow")
    except importlib.metadata.PackageNotFoundError:
        return Finding("airflow", ok=True, found="not installed; only needed to schedule studies")
    if version.startswith("3.3."):
        return Finding("airflow", ok=True, found=version)
    return Finding(
        "airflow",
        ok=False,
        found=version,
        remedy="install automl-airflow[airflow] with constraints.txt",
    )
