"""The table of steps, the calls of steps, and what importing them loads."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from automl.errors import ConfigError
from automl.machine.signals import StopSignal
from automl.steps.call import Need, StepCall, parse_call
from automl.steps.dispatch import run_named_step
from automl.steps.specs import PIPELINE, STEPS, Compute, Pool, Queue, StepSpec, Trigger
from automl.steps.study_file import study_spec

DOCUMENT: dict[str, Any] = {
    "name": "leaves",
    "task": "image_classification",
    "data": {"source": "/data/leaves.csv"},
    "search": {"slice": "5m"},
    "final_fit": {"time_limit": "30m"},
}
HEAVY = {
    "airflow", "boto3", "dask", "distributed", "numpy", "onnx", "onnxruntime", "scipy", "sklearn",
    "sqlalchemy", "torch",
}  # fmt: skip


# --- the table ---


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_the_function_of_every_step_is_there_and_takes_a_context_and_a_call(step: StepSpec) -> None:
    function = step.load()

    assert function.__annotations__ == {
        "context": "StepContext", "call": "StepCall", "return": "JsonValue",
    }  # fmt: skip
    own = f"automl.steps.{step.name}:step"
    assert step.call == (f"automl.steps.supervision:{step.name}_step" if step.task is None else own)


def test_the_pipeline_comes_in_its_order_and_no_task_twice() -> None:
    assert [step.task for step in PIPELINE] == [
        "check", "prepare", "open_run", "search", "choose", "final_fit", "export", "evaluate",
        "promote",
    ]  # fmt: skip
    assert {step.name for step in STEPS.values() if step.task is None} == {"give_back", "fail_run"}


def test_what_the_steps_hold_and_end_is_as_documented() -> None:
    def names(condition: Any) -> set[str]:
        return {name for name, step in STEPS.items() if condition(step)}

    assert names(lambda step: not step.needs_run) == {"check", "prepare", "give_back", "fail_run"}
    assert names(lambda step: step.begins_search) == {"open_run", "run_worker"}
    assert names(lambda step: step.ends_run) == {
        "open_run", "choose", "final_fit", "export", "evaluate", "promote",
    }  # fmt: skip
    assert names(lambda step: step.opens_run) == {"open_run"}
    assert names(lambda step: step.device is not Compute.NONE) == {"run_worker", "final_fit"}
    assert names(lambda step: step.queue is Queue.GPU) == {"run_worker", "final_fit"}
    assert names(lambda step: step.pool is Pool.GPU) == {"run_worker", "final_fit"}
    assert names(lambda step: step.pool is Pool.CPU) == {"prepare", "export", "evaluate"}
    assert names(lambda step: step.trigger is Trigger.ALL_DONE_IF_OPENED) == {"choose"}
    assert names(lambda step: step.is_mapped) == {"run_worker"}


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("check", timedelta(minutes=10)),
        ("prepare", timedelta(hours=6)),
        ("run_worker", timedelta(minutes=15)),
        ("final_fit", timedelta(minutes=40)),
        ("evaluate", timedelta(hours=1)),
        ("fail_run", timedelta(minutes=10)),
    ],
)
def test_limits_follow_the_study(name: str, limit: timedelta) -> None:
    assert STEPS[name].limit.seconds(study_spec(DOCUMENT)) == limit.total_seconds()


# --- calls ---


def call_of(step: str, **more: Any) -> StepCall:
    return parse_call({"spec": DOCUMENT, "run": "r", **more}, STEPS[step].needs, StopSignal())


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_call_comes_back_from_its_payload(step: StepSpec) -> None:
    spec = study_spec(DOCUMENT)
    call = StepCall(spec, "r", "airflow:automl_leaves", worker=3, snapshot="abc", cause="it broke")

    read = parse_call(call.payload(), step.needs, call.stop)

    assert read == call


def test_a_study_file_travels_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "leaves.yaml"
    path.write_text("name: leaves\ntask: image_classification\ndata: {source: x.csv}\n")
    payload = {"study_file": str(path), "spec": None, "run": "r"}

    call = parse_call(payload, (), StopSignal())

    assert call.spec is not None
    assert call.spec.data.source == str(tmp_path / "x.csv")
    assert call.payload()["spec"] is None
    assert parse_call(call.payload(), (), call.stop) == call


def test_a_call_without_a_specification_names_the_study() -> None:
    call = StepCall(None, "r", "airflow:automl_leaves", study="leaves")

    assert parse_call(call.payload(), (), call.stop) == call
    assert call.name == "leaves"
    assert call_of("check").name == "leaves"


@pytest.mark.parametrize("origin", ["airflow:automl_leaves", "cli", "python", ""])
def test_only_workers_of_airflow_have_slices(origin: str) -> None:
    slice_s = call_of("check", origin=origin).slice_s

    assert slice_s == (300 if origin.startswith("airflow") else None)


def test_all_problems_of_a_payload_are_told_at_once() -> None:
    broken = DOCUMENT | {"data": {"sorce": "x"}, "search": {"workers": 0}}
    payload = {"spec": broken, "run": "", "worker": True, "snapshot": 7, "cuase": "?"}

    with pytest.raises(ConfigError) as caught:
        parse_call(payload, frozenset(Need), StopSignal())

    assert caught.value.message == "The payload has 8 problems."
    assert {problem.path for problem in caught.value.problems} == {
        "cuase", "run", "worker", "snapshot", "cause",
        "data.sorce", "data.source", "search.workers",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ([], "The payload is a JSON list, not an object"),
        ({"run": "r"}, "The payload has no specification"),
        ({"run": "r", "spec": {}}, "The specification has"),
        ({"spec": DOCUMENT}, "run: this step needs it"),
        ({"spec": DOCUMENT, "run": "r", "worker": -1}, "-1 is not an index"),
        ({"spec": DOCUMENT, "run": ["r"]}, r"\['r'\] is not a text"),
    ],
)
def test_a_payload_that_cannot_be_used_is_refused(payload: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_call(payload, (), StopSignal())


@pytest.mark.parametrize(
    ("step", "key"), [("open_run", "snapshot"), ("run_worker", "worker"), ("fail_run", "cause")]
)
def test_a_step_is_refused_without_what_it_needs(step: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: this step needs it"):
        call_of(step)


def test_an_unknown_step_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"There is no step 'tune'\. Hint: use one of check, "):
        run_named_step("tune", {})


# --- guards ---


def test_the_table_and_the_dispatch_load_nothing_heavy() -> None:
    script = f"""
import sys
import automl.steps.specs, automl.steps.dispatch
from automl.steps.call import parse_call
from automl.machine.signals import StopSignal
parse_call({{"spec": {DOCUMENT!r}, "run": "r"}}, (), StopSignal())
print(*sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
