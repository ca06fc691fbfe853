"""The trigger form: its defaults, its fields, and the document that it describes."""

from __future__ import annotations

import copy
import importlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from automl.domain import availability
from automl.domain.objective import Objective
from automl.domain.specification import (
    Preference,
    Quantization,
    Resize,
    SmallClasses,
    Split,
    Strategy,
    StudySpec,
)
from automl.errors import ConfigError
from automl.steps import study_file
from automl.steps.study_file import study_spec
from automl.tracks.image.card import CARD

os.environ.setdefault("AIRFLOW_HOME", "/tmp/automl-test-airflow")  # noqa: S108
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

MINIMAL = {"name": "leaves", "task": "image_classification", "data": {"source": "/leaves.csv"}}
TABLES = replace(
    CARD, task="guess_weights", objectives=frozenset({Objective.RMSE}),
    default_objective=Objective.RMSE, data_keys=frozenset(),
)  # fmt: skip


@pytest.fixture(autouse=True)
def form(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The form's module, with nothing remembered before and after the test."""
    from automl_airflow import form

    form.fields.cache_clear()
    yield form
    form.fields.cache_clear()


def params(form: Any, **more: Any) -> dict[str, Any]:
    start = {name: param.value for name, param in form.form_params().items()}
    return start | {"name": "leaves", "source": "/leaves.csv"} | more


def test_a_form_that_nobody_has_touched_gives_a_study_of_defaults(form: Any) -> None:
    assert form.document_from_params(params(form)) == MINIMAL
    assert form.spec_from_params(params(form)) == study_spec(MINIMAL)


def test_every_start_value_satisfies_its_own_schema(form: Any) -> None:
    for param in form.form_params().values():
        param.resolve()


def leaves(model: type[BaseModel], place: str = "") -> Iterator[str]:
    """Yield the key paths of a specification."""
    for name, field in model.model_fields.items():
        path = place + (field.alias or name)
        kinds = [field.annotation, *get_args(field.annotation)]
        sections = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if sections:
            yield from leaves(sections[0], f"{path}.")
        else:
            yield path


TRIED: tuple[Any, ...] = (
    True, False, 0, 1, 2, 16, 0.25, 1.5, "auto", "text", "90s", "4GB", ["text"], {"a": "number"},
    *Strategy, *Split, *Resize, *Preference, *Quantization, *SmallClasses, *Objective,
)  # fmt: skip


GOES_WITH: Mapping[str, Mapping[str, Any]] = {  # keys that another key's value goes with
    "data.group": {"data.split": "group"},
    "data.time": {"data.split": "time"},
    "data.test_source": {"data.test_fraction": 0.0},
}


def accepted(path: str) -> list[Any]:
    """Return the values of a key that a study may have instead of the default."""
    found = []
    others = GOES_WITH.get(path, {})
    for value in TRIED:
        document: dict[str, Any] = copy.deepcopy(MINIMAL)
        for other, its_value in {**others, path: value}.items():
            *sections, key = other.split(".")
            place = document
            for section in sections:
                place = place.setdefault(section, {})
            place[key] = its_value
        try:
            is_other = study_spec(document) != study_spec(MINIMAL)
        except ConfigError:
            continue
        if is_other:
            found.append(value)
    return found


def test_the_form_shows_every_available_key_and_no_other(form: Any) -> None:
    shown = {field.path: field for field in form.fields()}
    possible = {path: accepted(path) for path in leaves(StudySpec)}

    available = {path for path, values in possible.items() if values}
    assert available - {"schedule", "timezone"} <= shown.keys()
    assert shown.keys() - available <= {"task", "search.objective"}  # the only ones there are
    assert {"search.strategy", "search.priority", "search.limits.latency_ms"} <= shown.keys()
    assert {"search.resources.gpus", "search.resources.cpus"} <= shown.keys()
    for path, field in shown.items():
        assert field.description.endswith("."), path
        if "enum" in field.schema and path not in {"task", "search.objective"}:
            assert set(possible[path]) <= set(field.schema["enum"])


def test_a_key_that_becomes_available_shows_up_by_itself(
    form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tuple(line for line in availability._AVAILABLE if line[0] != "search.prefer")
    monkeypatch.setattr(availability, "_AVAILABLE", left)

    assert form.form_params()["prefer"].schema["enum"] == ["accuracy", "small"]


def test_names_that_callers_rely_on_stay_and_the_main_ones_are_open(form: Any) -> None:
    given = form.form_params()

    assert set(given) >= {
        "name", "task", "source", "time_limit", "workers", "images", "label", "image_size", "split",
        "validation_fraction", "test_fraction", "max_bad_fraction", "objective", "max_trials",
        "seed", "slice", "retrain", "final_time_limit", "continue_version", "min_improvement",
    }  # fmt: skip
    assert len(given) == len(form.fields())
    main = [name for name, param in given.items() if "section" not in param.schema]
    assert main == ["name", "task", "source", "time_limit", "workers"]


def test_limits_and_resources_reach_the_study(form: Any) -> None:
    given = params(
        form, strategy="evolution", priority=7, limits_device_memory="4GB", resources_gpus=0,
        limits_parameters=None, ensemble="1",
    )  # fmt: skip

    assert form.document_from_params(given) == MINIMAL | {
        "search": {
            "strategy": "evolution", "priority": 7, "limits": {"device_memory": "4GB"},
            "resources": {"gpus": 0},
        },
        "final_fit": {"ensemble": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resources_gpus", 2), ("priority", 0), ("limits_device_memory", "much"),
        ("strategy", "guess"), ("validation_fraction", 1), ("time_limit", "2 hours"),
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_refused_by_the_form(form: Any, name: str, value: Any) -> None:
    with pytest.raises(Exception, match="Failed validating"):
        form.form_params()[name].resolve(value)


@pytest.mark.parametrize("name", ["images", "limits_device_memory"])
def test_an_empty_field_may_be_sent_as_an_empty_text(form: Any, name: str) -> None:
    form.form_params()[name].resolve("")

    assert form.document_from_params(params(form, **{name: ""})) == MINIMAL


def instance(dag_id: str, pool: str = "automl_gpu") -> Any:
    task = SimpleNamespace(weight_rule=SimpleNamespace(get_weight=lambda _: 3))
    return SimpleNamespace(dag_id=dag_id, pool=pool, queue="gpu", priority_weight=3, task=task)


@pytest.mark.parametrize(
    ("dag_id", "conf", "expected"),
    [
        ("automl_search", {"resources_gpus": 0}, ("automl_cpu", "default", 3)),
        ("automl_search", {"resources_gpus": 1}, ("automl_gpu", "gpu", 3)),
        ("automl_search", {"priority": 7}, ("automl_gpu", "gpu", 21)),
        ("automl_search", None, ("automl_gpu", "gpu", 3)),
        ("others", {"resources_gpus": 0, "priority": 7}, ("automl_gpu", "gpu", 3)),
    ],
)
def test_the_policy_follows_the_forms_run_and_leaves_others_alone(
    dag_id: str, conf: Any, expected: tuple[str, str, int]
) -> None:
    from automl_airflow.policy import task_instance_mutation_hook

    task = instance(dag_id)
    for _ in range(2):  # Airflow calls it more than once
        task_instance_mutation_hook(task, SimpleNamespace(conf=conf))
    task_instance_mutation_hook(task, None)

    assert (task.pool, task.queue, task.priority_weight) == expected


def test_the_policy_leaves_tasks_that_need_no_gpu_where_they_are() -> None:
    from automl_airflow.policy import task_instance_mutation_hook

    task = instance("automl_search", "default_pool")
    task_instance_mutation_hook(task, SimpleNamespace(conf={"resources_gpus": 0}))

    assert (task.pool, task.queue) == ("default_pool", "gpu")


def test_what_was_changed_is_in_the_document(form: Any) -> None:
    changed = params(
        form, image_size="32", time_limit="5m", retrain=False, continue_version=3, label=""
    )

    assert form.document_from_params(changed) == {
        "name": "leaves",
        "task": "image_classification",
        "data": {"source": "/leaves.csv", "image_size": 32},
        "search": {"time_limit": "5m"},
        "final_fit": {"retrain": False, "from": 3},
    }


def test_names_that_mean_something_elsewhere_stay_names(form: Any) -> None:
    assert form.document_from_params(params(form, name="auto"))["name"] == "auto"
    assert form.document_from_params(params(form, name="form"))["name"] == "form"


def test_tasks_objectives_and_data_fields_are_those_of_the_installed_tracks(
    form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = {CARD.task: CARD, TABLES.task: TABLES}
    monkeypatch.setattr(study_file, "installed_cards", lambda: cards)

    given = form.form_params()

    assert given["task"].schema["enum"] == ["guess_weights", "image_classification"]
    assert given["objective"].schema["enum"] == ["auto", "accuracy", "rmse"]
    document = form.document_from_params(params(form, task="guess_weights", objective="rmse"))
    assert document == {
        "name": "leaves",
        "task": "guess_weights",
        "data": {"source": "/leaves.csv"},
        "search": {"objective": "rmse"},
    }


def test_fields_that_no_track_understands_are_not_shown(
    form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = frozenset({"source", "split", "test_fraction"})
    card = replace(CARD, data_keys=known)
    monkeypatch.setattr(study_file, "installed_cards", lambda: {card.task: card})

    names = set(form.form_params())

    assert {"split", "test_fraction"} <= names
    assert not names & {"images", "label", "image_size", "max_bad_fraction"}
    with pytest.raises(ConfigError, match="image_size: unknown"):
        form.refuse_unknown_keys({"image_size": "32"})


def test_an_installation_without_tracks_is_told_what_to_do(
    form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_file, "installed_cards", dict)

    with pytest.raises(ConfigError, match="No track is installed"):
        form.form_params()


def test_the_policy_counts_without_local_settings() -> None:
    from airflow import settings
    from automl_airflow import policy

    assert policy.SEARCH_DAG == "automl_search"
    assert settings.task_instance_mutation_hook.is_noop is False  # type: ignore[attr-defined]


def test_the_policy_is_an_entry_point_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    points = project["entry-points"]["airflow.policy"]
    assert points == {"automl": "automl_airflow.policy"}
    assert importlib.import_module(points["automl"]).task_instance_mutation_hook
