"""What several files of integration tests start from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.continuing import Place, publish_and_grow
from tests.homes import use_home
from tests.operators import CHECKED, CHILD

os.environ.setdefault("AIRFLOW_HOME", "/tmp/automl-test-airflow")  # noqa: S108


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study that has searched and published version 1, and has more images since then."""
    return publish_and_grow(tmp_path_factory.mktemp("first"))


@pytest.fixture
def place(first: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy that may be changed, and the settings of this process for it."""
    copy = first.copy(tmp_path)
    use_home(copy.home, monkeypatch)
    monkeypatch.setenv("AUTOML_SOURCES", str(copy.source))  # its steps run as Airflow's do
    return copy


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that stands for `automl.steps` and does what a plan says."""
    (tmp_path / "tiny_step.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "tiny_step"


@pytest.fixture
def operator(child: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes the task of a step whose child follows a plan."""
    from automl_airflow.operator import StepOperator

    monkeypatch.setenv("AUTOML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "sqlite:////secret")

    def make(step: str, plan: str = "echo", **more: Any) -> Any:
        monkeypatch.setenv("AUTOML_TEST_PLAN", plan)
        settings = {"checked": None if step == "check" else CHECKED, **more}
        return StepOperator(task_id=step, step=step, module=child, **settings)

    return make
