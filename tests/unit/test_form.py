"""The trigger form: its defaults, its fields, and the document that it describes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from automl.domain.objective import Objective
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
