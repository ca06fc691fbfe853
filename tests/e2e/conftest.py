"""A whole Airflow on this machine, shared by all end-to-end tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from automl_airflow.local import LocalAirflow

_DAGS = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits as files, their manifest and a study file."""
    folder = tmp_path_factory.mktemp("studies") / "digits"
    subprocess.run(
        [sys.executable, "-m", "automl.cli", "sample", "digits", str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the steps write to."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, home: Path
) -> Iterator[LocalAirflow]:
    """Scheduler, DAG processor and API server, healthy and with the DAGs parsed."""
    env = {"AUTOML_HOME": str(home), "AUTOML_STUDIES": str(digits), "AUTOML_SOURCES": str(digits)}
    env["OMP_NUM_THREADS"] = "1"
    local = LocalAirflow(tmp_path_factory.mktemp("airflow"), _DAGS, env)
    try:
        local.start()
        local.client.wait_for_dag("automl_search")
        yield local
    finally:
        local.stop()
