"""Searches on the sample digits, through a running Airflow, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from automl_airflow.local import LocalAirflow

DAG_ID = "automl_search"
WORKERS = 2


def form(digits: Path, name: str, **more: Any) -> dict[str, Any]:
    """Return the configuration of a short run on the digits under `digits`."""
    return {
        "name": name,
        "source": str(digits / "train.csv"),
        "images": str(digits / "images"),
        "time_limit": "90s",
        "workers": WORKERS,
        "slice": "20s",
        "retrain": False,
        **more,
    }


def task_states(airflow: LocalAirflow, run_id: str) -> str:
    """Return how the tasks of a run stand, for the message of an assertion."""
    tasks = airflow.client.tasks(DAG_ID, run_id)
    return ", ".join(f"{t['task_id']}[{t['map_index']}] {t['state']}" for t in tasks)


def champion_metrics(home: Path, name: str) -> dict[str, Any]:
    """Return the metrics of the version that `champion.json` names."""
    registry = home / "models" / name
    champion = json.loads((registry / "champion.json").read_text())
    bundle = (registry / champion["uri"]).resolve().parent
    metrics: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())["metrics"]
    return metrics
