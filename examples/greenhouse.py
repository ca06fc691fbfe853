"""A team's own DAG with a study in its middle: data arrive, a search runs, its champion is told.

Copy it into the DAG folder. `GREENHOUSE_DATA` names an absolute folder that `AUTOML_SOURCES`
allows; the example writes real scans of digits there, where a team would fetch its own data.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

from airflow.sdk import dag, task
from automl_airflow.task_group import study_task_group

DATA = os.environ.get("GREENHOUSE_DATA", "/data/greenhouse")
NAME = "greenhouse"
STUDY = {
    "name": NAME,
    "task": "image_classification",
    "data": {"source": f"{DATA}/train.csv", "images": f"{DATA}/images"},
    "search": {"time_limit": "10m", "max_trials": 1, "workers": 1},
    "final_fit": {"retrain": False},
}


@dag(
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # runs of one study never overlap
    max_active_tasks=16,  # never fewer than the study has workers
)
def greenhouse() -> None:
    """Fetch data, search for a better model of them, and tell which one is in force."""

    @task
    def fetch() -> None:
        command = [sys.executable, "-m", "automl.cli", "sample", "digits", DATA]
        subprocess.run(command, check=True)

    @task
    def announce() -> int:
        command = [sys.executable, "-m", "automl.cli", "models", NAME, "--json"]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        champion: int = json.loads(found.stdout)["champion"]
        print(f"version {champion} is in force")  # noqa: T201 - Airflow logs it
        return champion

    fetch() >> study_task_group("search", spec=STUDY) >> announce()


greenhouse()
