"""Specifications of runs on every kind of home: the first one that is stored stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from automl.domain.settings import Settings
from automl.domain.specification import StudySpec
from automl.errors import ConfigError, DamagedDataError, NewerSchemaError
from automl.runs.context import StepContext
from automl.runs.opening import open_run
from automl.runs.run_lease import RunLease
from automl.runs.run_specification import (
    read_specification,
    specification_of_run,
    store_specification,
)
from automl.steps.dispatch import run_named_step
from automl.steps.study_file import study_spec
from automl.storage.home import Home

KEY = "studies/leaves/runs/night/spec.json"


def spec_of(workers: int = 1) -> StudySpec:
    return study_spec(
        {
            "name": "leaves",
            "task": "image_classification",
            "data": {"source": "/data/grüne/leaves.csv"},
            "search": {"workers": workers},
        }
    )


def context_of(home: Home, spec: StudySpec) -> StepContext:
    context = StepContext.open(Settings("/unused"), spec, "night", "airflow:automl_leaves", home)
    context.record.refresh()
    return context


def test_the_first_specification_stays(home: Home) -> None:
    first, second = context_of(home, spec_of()), context_of(home, spec_of(2))

    assert read_specification(home.store, "leaves", "night") is None
    assert store_specification(first) == spec_of()
    assert store_specification(second) == spec_of()
    assert read_specification(home.store, "leaves", "night") == spec_of()
    assert specification_of_run(home, "leaves", "night", None) == spec_of()


def test_the_stored_one_counts_and_the_difference_is_told(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    store_specification(context_of(home, spec_of()))

    assert specification_of_run(home, "leaves", "night", spec_of()) == spec_of()
    assert "counts from the next run" not in caplog.text
    assert specification_of_run(home, "leaves", "night", spec_of(2)) == spec_of()
    assert "counts from the next run" in caplog.text


def test_a_run_that_was_opened_before_keeps_what_it_was_opened_with(home: Home) -> None:
    context = context_of(home, spec_of(3))
    with RunLease(context):
        open_run(context, "snapshot")

    assert specification_of_run(home, "leaves", "night", None) == spec_of(3)
    assert store_specification(context_of(home, spec_of(4))) == spec_of(3)
    assert read_specification(home.store, "leaves", "night") == spec_of(3)


def test_a_run_that_was_never_checked_has_none(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"Run night of study leaves was never checked.*clear"):
        specification_of_run(home, "leaves", "night", None)


@pytest.mark.parametrize("step", ["open_run", "run_worker", "choose", "promote"])
def test_a_run_that_was_never_checked_takes_no_lease(home: Home, step: str) -> None:
    payload = {"study": "leaves", "run": "night", "snapshot": "s", "worker": 0}

    with pytest.raises(ConfigError, match="was never checked"):
        run_named_step(step, payload, home)
    assert not home.leases("leaves").is_live("run")


@pytest.mark.parametrize("step", ["run_worker", "choose", "final_fit", "promote"])
def test_a_run_that_was_never_opened_takes_no_lease(home: Home, step: str) -> None:
    other = StepContext.open(Settings("/unused"), spec_of(), "other", "test", home)
    store_specification(context_of(home, spec_of()))
    with RunLease(other):  # a refused study is another's
        with pytest.raises(Exception, match="Run night of study leaves was never opened"):
            run_named_step(step, {"study": "leaves", "run": "night", "worker": 0}, home)
        assert home.leases("leaves").holder("run") == "other"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"schema": 2}, NewerSchemaError, "has schema 2; this version reads up to 1"),
        ({"spec_hash": "0"}, DamagedDataError, "its hash is not that of its content"),
        ({"spec": {}}, DamagedDataError, "holds no specification"),
        ({"schema": None}, DamagedDataError, "holds no specification"),
    ],
)
def test_a_document_that_is_not_what_was_written_is_refused(
    home: Home, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    store_specification(context_of(home, spec_of()))
    document = json.loads(home.store.get(KEY).data) | change
    home.store.put(KEY, json.dumps(document).encode())

    with pytest.raises(error, match=message):
        specification_of_run(home, "leaves", "night", spec_of())


def test_check_stores_what_it_accepts_and_nothing_else(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_HOME", str(tmp_path / "home"))
    source = tmp_path / "rows.csv"
    data = {"name": "leaves", "task": "image_classification", "data": {"source": str(source)}}
    payload = {"spec": data, "run": "night", "origin": "test"}

    with pytest.raises(ConfigError, match="does not exist"):
        run_named_step("check", payload, home)
    assert read_specification(home.store, "leaves", "night") is None
    source.write_text("")
    checked: Any = run_named_step("check", payload, home)
    later: Any = run_named_step("check", payload | {"spec": data | {"schedule": None}}, home)

    assert read_specification(home.store, "leaves", "night") == study_spec(data)
    assert checked == later
    assert checked["spec"] == study_spec(data).spec_hash
    assert (checked["schedule"], checked["limits"]["final_fit"]) == ("0 1 * * *", 4200.0)
