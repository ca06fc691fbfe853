"""The trigger form: one field per available key of a study file that an installed track knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from airflow.sdk import Param

from automl.domain.specification import (
    DataSection,
    ExportSection,
    FinalFitSection,
    SearchSection,
    Section,
    Split,
    StudySpec,
)
from automl.errors import ConfigError, Problem
from automl.steps.study_file import Offer, offer, study_spec

_AUTO = "auto"
_REQUIRED = frozenset({"name", "task", "data.source"})  # they have no default


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the form.

    Attributes:
        name: the parameter's name.
        path: key path of the specification that it sets.
        schema: JSON schema of the value.
        description: text under the field.
        section: where the field stands; None is the open main section.
        example: value that the form starts with; None stands for the specification's default, and
            if that is None too, for an empty field.
    """

    name: str
    path: str
    schema: Mapping[str, Any]
    description: str
    section: str | None = None
    example: Any = None


_NAME = {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"}
_SOURCE = {"type": "string", "minLength": 1}
_TEXT_OR_NONE = {"type": ["null", "string"]}
_DURATION = {"type": "string", "pattern": "^[0-9]+[smh]$"}
_FRACTION = {"type": "number", "minimum": 0, "maximum": 0.9}
_AUTO_SIZE = {"type": "string", "pattern": "^(auto|[0-9]{1,4})$"}
_COUNT_OR_NONE = {"type": ["null", "integer"], "minimum": 1}
_SPLITS = [Split.STRATIFIED.value, Split.RANDOM.value]


def _one_of(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


@cache
def fields() -> tuple[Field, ...]:
    """Return the fields of the form, those for the data only where a track understands them."""
    offered = offer()
    known = (f for f in _DATA_FIELDS if f.path.removeprefix("data.") in offered.data_keys)
    return (*_main_fields(offered), *known, *_search_fields(offered), *_LATER_FIELDS)


def _main_fields(offered: Offer) -> tuple[Field, ...]:
    return (
        Field("name", "name", _NAME, "The study. A name used before continues that study.",
              example="form"),
        Field("task", "task", _one_of(offered.tasks), "What is learned from what.",
              example=offered.tasks[0]),
        Field("source", "data.source", _SOURCE,
              "CSV manifest, folder of class folders, or `.npz` with x and y.",
              example="s3://bucket/train.csv"),
        Field("time_limit", "search.time_limit", _DURATION,
              "How long the search may take: `90s`, `15m`, `2h`."),
        Field("workers", "search.workers", {"type": "integer", "minimum": 1, "maximum": 64},
              "How many candidates train at the same time."),
    )  # fmt: skip


_DATA_FIELDS = (
    Field("images", "data.images", _TEXT_OR_NONE,
          "Where the manifest's paths start; empty: beside the manifest.", "Data"),
    Field("label", "data.label", _TEXT_OR_NONE,
          "The manifest's label column; empty: Label, label, target or class.", "Data"),
    Field("image_size", "data.image_size", _AUTO_SIZE, "`auto`, or pixels.", "Data"),
    Field("split", "data.split", _one_of(_SPLITS), "How rows are held out.", "Data"),
    Field("validation_fraction", "data.validation_fraction", _FRACTION,
          "Share of the rows that scores candidates.", "Data"),
    Field("test_fraction", "data.test_fraction", _FRACTION,
          "Share of the rows that stays sealed until the end.", "Data"),
    Field("max_bad_fraction", "data.max_bad_fraction",
          {"type": "number", "minimum": 0, "maximum": 1},
          "Share of unreadable rows that is tolerated.", "Data"),
)  # fmt: skip


def _search_fields(offered: Offer) -> tuple[Field, ...]:
    return (
        Field("objective", "search.objective", _one_of([_AUTO, *offered.objectives]),
              "What the search optimises.", "Search", example=_AUTO),
        Field("max_trials", "search.max_trials", _COUNT_OR_NONE,
              "Ends the search early; empty: only the time limit does.", "Search"),
        Field("seed", "search.seed", {"type": "integer", "minimum": 0}, "Seed.", "Search"),
        Field("slice", "search.slice", _DURATION,
              "How long a worker keeps its pool slot before others may have it.", "Search"),
    )  # fmt: skip


_LATER_FIELDS = (
    Field("retrain", "final_fit.retrain", {"type": "boolean"},
          "Train the winner again on all rows that are not sealed.", "Final fit"),
    Field("final_time_limit", "final_fit.time_limit", _DURATION, "How long that may take.",
          "Final fit"),
    Field("continue_version", "final_fit.from", _COUNT_OR_NONE,
          "A published version to train on with the present data, instead of a search.",
          "Final fit"),
    Field("min_improvement", "export.min_improvement", {"type": "number", "minimum": 0},
          "Gain on the test rows below which the champion stays.", "Publishing"),
)  # fmt: skip


@cache
def _defaults() -> dict[str, Any]:
    """Return the sections of a study with nothing but defaults."""
    sections: dict[str, Section] = {
        "data": DataSection(source="unnamed"),
        "search": SearchSection(),
        "final_fit": FinalFitSection(),
        "export": ExportSection(),
    }
    return {
        name: section.model_dump(mode="json", by_alias=True) for name, section in sections.items()
    }


def _start(field: Field) -> Any:
    """Return the value that a field starts with; None leaves it empty."""
    if field.example is not None:
        return field.example
    value: Any = _defaults()
    for key in field.path.split("."):
        value = value[key]
    return value


def form_params() -> dict[str, Param]:
    """Return the parameters of a DAG that runs any study."""
    return {field.name: _param(field) for field in fields()}


def _param(field: Field) -> Param:
    schema = dict(field.schema)
    if field.section is not None:
        schema["section"] = field.section
    return Param(_start(field), description_md=field.description, **schema)


def document_from_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study document that the form describes.

    Empty fields are left out, and so are those that are as they were at the start: the default
    counts, and a track that does not understand the key refuses no study for it.
    """
    document: dict[str, Any] = {}
    for field in fields():
        value = params[field.name]
        if value in (None, "") or (value == _start(field) and field.path not in _REQUIRED):
            continue
        if field.name == "image_size":
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
    return study_spec(document_from_params(params))


def refuse_unknown_keys(conf: Iterable[str]) -> None:
    """Refuse keys of a run's `conf` that are no field; Airflow accepts them silently.

    Raises:
        ConfigError: with each unknown key.
    """
    known = {field.name for field in fields()}
    problems = [
        Problem(key, f"unknown; known here: {', '.join(sorted(known))}")
        for key in conf
        if key not in known
    ]
    if problems:
        raise ConfigError("The run's conf has unknown keys.", "correct or remove them", problems)
