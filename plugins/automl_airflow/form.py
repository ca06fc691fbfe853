"""The trigger form: one field per available key of a study file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Param

from automl.domain.parsing import parse_spec
from automl.domain.specification import Split, StudySpec
from automl.errors import ConfigError, Problem

_DURATION = {"type": "string", "pattern": "^[0-9]+[smh]$"}
_TEXT = {"type": ["null", "string"]}
_FRACTION = {"type": "number", "minimum": 0, "maximum": 0.9}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the form.

    Attributes:
        name: the parameter's name.
        path: key path of the specification that it sets.
        default: value that the form starts with; None leaves the key out.
        schema: JSON schema of the value.
        description: text under the field.
        section: where the field stands; None is the open main section.
    """

    name: str
    path: str
    default: Any
    schema: Mapping[str, Any]
    description: str
    section: str | None = None


_NAME = {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"}
_SOURCE = {"type": "string", "minLength": 1}
_AUTO_SIZE = {"type": "string", "pattern": "^(auto|[0-9]{1,4})$"}
_COUNT_OR_NONE = {"type": ["null", "integer"], "minimum": 1}

FIELDS: tuple[Field, ...] = (
    Field("name", "name", "form", _NAME, "The study. A name used before continues that study."),
    Field("source", "data.source", "s3://bucket/train.csv", _SOURCE,
          "CSV manifest, folder of class folders, or `.npz` with x and y."),
    Field("time_limit", "search.time_limit", "2h", _DURATION,
          "How long the search may take: `90s`, `15m`, `2h`."),
    Field("workers", "search.workers", 2, {"type": "integer", "minimum": 1, "maximum": 64},
          "How many candidates train at the same time."),
    Field("images", "data.images", None, _TEXT,
          "Where the manifest's paths start; empty: beside the manifest.", "Data"),
    Field("label", "data.label", None, _TEXT,
          "The manifest's label column; empty: Label, label, target or class.", "Data"),
    Field("image_size", "data.image_size", "auto", _AUTO_SIZE, "`auto`, or pixels.", "Data"),
    Field("split", "data.split", "stratified",
          {"type": "string", "enum": [Split.STRATIFIED.value, Split.RANDOM.value]},
          "How rows are held out.", "Data"),
    Field("validation_fraction", "data.validation_fraction", 0.2, _FRACTION,
          "Share of the rows that scores candidates.", "Data"),
    Field("test_fraction", "data.test_fraction", 0.2, _FRACTION,
          "Share of the rows that stays sealed until the end.", "Data"),
    Field("max_bad_fraction", "data.max_bad_fraction", 0.05,
          {"type": "number", "minimum": 0, "maximum": 1},
          "Share of unreadable rows that is put up with.", "Data"),
    Field("max_trials", "search.max_trials", None, _COUNT_OR_NONE,
          "Ends the search early; empty: only the time limit does.", "Search"),
    Field("seed", "search.seed", 0, {"type": "integer", "minimum": 0}, "Seed.", "Search"),
    Field("slice", "search.slice", "10m", _DURATION,
          "How long a worker keeps its pool slot before others may have it.", "Search"),
    Field("retrain", "final_fit.retrain", default=True, schema={"type": "boolean"},
          description="Train the winner again on all rows that are not sealed.",
          section="Final fit"),
    Field("final_time_limit", "final_fit.time_limit", "1h", _DURATION,
          "How long that may take.", "Final fit"),
    Field("continue_version", "final_fit.from", None, _COUNT_OR_NONE,
          "A published version to train on with the present data, instead of a search.",
          "Final fit"),
    Field("min_improvement", "export.min_improvement", 0.0, {"type": "number", "minimum": 0},
          "Gain on the test rows below which the champion stays.", "Publishing"),
)  # fmt: skip


def form_params() -> dict[str, Param]:
    """Return the parameters of a DAG that runs any study."""
    return {field.name: _param(field) for field in FIELDS}


def _param(field: Field) -> Param:
    schema = dict(field.schema)
    if field.section is not None:
        schema["section"] = field.section
    return Param(field.default, description_md=field.description, **schema)


def document_from_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study document that the form describes; empty fields are left out."""
    document: dict[str, Any] = {"task": "image_classification"}
    for field in FIELDS:
        value = params[field.name]
        if value is None or value == "":
            continue
        if field.name == "image_size" and value != "auto":
            value = int(value)
        *sections, key = field.path.split(".")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return document


def spec_from_params(params: Mapping[str, Any]) -> StudySpec:
    """Return the specification that the form describes.

    Raises:
        ConfigError: with every problem.
    """
    return parse_spec(document_from_params(params))


def refuse_unknown_keys(conf: Iterable[str]) -> None:
    """Refuse keys of a run's `conf` that are no field; Airflow accepts them silently.

    Raises:
        ConfigError: with each unknown key.
    """
    known = {field.name for field in FIELDS}
    problems = [
        Problem(key, f"unknown; known here: {', '.join(sorted(known))}")
        for key in conf
        if key not in known
    ]
    if problems:
        raise ConfigError("The run's conf has unknown keys.", "correct or remove them", problems)
