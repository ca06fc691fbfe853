"""The trigger form: one field per key of the specification that is available here.

Fields are made from the specification's models: a key that becomes available shows up by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from airflow.sdk import Param

from automl.domain.availability import BY_ANYBODY, is_available
from automl.domain.specification import Split, StudySpec
from automl.errors import ConfigError, Problem
from automl.steps.study_file import Offer, offer, study_spec

_AUTO = "auto"
_REQUIRED = frozenset({"name", "task", "data.source"})  # they have no default
_MAIN = ("name", "task", "data.source", "search.time_limit", "search.workers")
_OF_FILES = frozenset({"schedule", "timezone"})  # the form's runs are triggered by hand
_NAMES = {  # where it is not the key itself
    "final_fit.time_limit": "final_time_limit",
    "final_fit.from": "continue_version",
}
_EXAMPLES = {"name": "form", "data.source": "s3://bucket/train.csv", "search.objective": _AUTO}
_TITLES = {"export": "Publishing"}
_BOUNDS = (
    "type", "enum", "pattern", "items", "minLength",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
)  # fmt: skip
_AUTO_OR_NUMBER = "^(auto|[0-9]{1,4})$"
_ONLY_WITH = {  # keys that another key's value asks for
    "data.group": ("data.split", Split.GROUP),
    "data.time": ("data.split", Split.TIME),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the form.

    Attributes:
        name: the parameter's name.
        path: key path of the specification that it sets.
        schema: JSON schema of the value.
        description: text under the field.
        start: value that the form starts with; None leaves the field empty.
        section: where the field stands; None is the open main section.
    """

    name: str
    path: str
    schema: Mapping[str, Any]
    description: str
    start: Any = None
    section: str | None = None


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the specification.

    Attributes:
        path: its key path.
        description: in a sentence.
        branches: JSON schemas, of which its value meets one.
        default: its value where a study says nothing.
    """

    path: str
    description: str
    branches: Sequence[Mapping[str, Any]]
    default: Any


@cache
def fields() -> tuple[Field, ...]:
    """Return the fields of the form, the main ones first."""
    offered = offer()
    keys = [key for key in _keys() if _is_offered(key.path, offered)]
    made = [field for key in keys if (field := _field(key, offered)) is not None]
    return tuple(sorted(made, key=lambda field: _rank(field.path)))


def _rank(path: str) -> int:
    return _MAIN.index(path) if path in _MAIN else len(_MAIN)


def _keys() -> Iterator[_Key]:
    """Yield all keys of the specification, in its order."""
    schema = StudySpec.model_json_schema()
    minimal = StudySpec(name="unnamed", task="unnamed", data={"source": "unnamed"})  # type: ignore[arg-type]
    yield from _keys_of("", schema, minimal.model_dump(mode="json", by_alias=True), schema["$defs"])


def _keys_of(
    place: str, schema: Mapping[str, Any], defaults: Any, definitions: Mapping[str, Any]
) -> Iterator[_Key]:
    for name, raw in schema["properties"].items():
        path = f"{place}.{name}" if place else name
        own = _resolved(raw, definitions)
        branches = [_resolved(one, definitions) for one in own.get("anyOf", [own])]
        default = defaults[name] if isinstance(defaults, dict) else None
        section = next((one for one in branches if "properties" in one), None)
        if section is None:
            yield _Key(path, own.get("description", ""), branches, default)
        else:
            yield from _keys_of(path, section, default, definitions)


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with what it refers to put in; its own words count."""
    named = schema.get("$ref", "").rpartition("/")[2]
    base = _resolved(definitions[named], definitions) if named else {}
    return {**base, **{key: value for key, value in schema.items() if key != "$ref"}}


def _is_offered(path: str, offered: Offer) -> bool:
    """Return whether an installed track understands the key and the form is about it."""
    if path in _ONLY_WITH and not is_available(*_ONLY_WITH[path]):
        return False
    key = path.removeprefix("data.")
    is_understood = key == path or key.split(".")[0] in offered.data_keys | BY_ANYBODY
    return path not in _OF_FILES and is_understood


def _field(key: _Key, offered: Offer) -> Field | None:
    """Return the field of a key; None if nothing but its default is available."""
    schema = _available_schema(key, offered)
    if schema is None:
        return None
    start = _EXAMPLES.get(key.path, key.default)
    if key.path == "task":
        start = offered.tasks[0]
    return Field(
        name=_name(key.path),
        path=key.path,
        schema=schema,
        description=key.description,
        start=start,
        section=None if key.path in _MAIN else _section(key.path),
    )


def _name(path: str) -> str:
    if path in _NAMES:
        return _NAMES[path]
    *sections, key = path.split(".")
    return "_".join([*sections[1:], key])  # limits_parameters, resources_gpus


def _section(path: str) -> str:
    *sections, _ = path.split(".")
    name = sections[-1] if sections else "study"
    return _TITLES.get(name, name.replace("_", " ").capitalize())


def _available_schema(key: _Key, offered: Offer) -> dict[str, Any] | None:
    """Return the JSON schema of a field, narrowed to what is available."""
    if key.path == "task":
        return {"type": "string", "enum": list(offered.tasks)}
    if key.path == "search.objective":
        return {"type": "string", "enum": [_AUTO, *offered.objectives]}
    schema = _plain(key.branches)
    if key.path in _REQUIRED:
        return schema
    tried = [value for value in _probes(schema) if value != key.default]
    accepted = [value for value in tried if is_available(key.path, value)]
    if not accepted:
        return None
    if "enum" in schema:
        known = [v for v in schema["enum"] if v == key.default or v in accepted]
        return {**schema, "enum": known}
    if "integer" in schema["type"] and len(accepted) < len(tried):
        values = [*accepted, key.default]
        return {**schema, "minimum": min(values), "maximum": max(values)}
    return schema


def _plain(branches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the schema of what people type: one type of value, or none where that is allowed."""
    values = [branch for branch in branches if branch.get("type") != "null"]
    if len(values) > 1:  # `auto` or a number
        return {"type": "string", "pattern": _AUTO_OR_NUMBER}
    schema = {key: values[0][key] for key in _BOUNDS if key in values[0]}
    if len(values) < len(branches):  # empty fields come as null or as an empty text
        schema["type"] = ["null", schema["type"]]
        schema.pop("minLength", None)
        if "pattern" in schema:
            schema["pattern"] = f"^$|{schema['pattern']}"
    return schema


def _probes(schema: Mapping[str, Any]) -> list[Any]:
    """Return values of a schema by which one sees whether anything but the default is available."""
    if "enum" in schema:
        return list(schema["enum"])
    kinds: dict[str, list[Any]] = {
        "boolean": [True, False],
        "integer": list(range(schema.get("minimum", 0), schema.get("maximum", 16) + 1)),
        "number": [0.25, 0.75],
        "array": [["name"]],
        "object": [{"name": "number"}],
        "string": [1, 2] if schema.get("pattern") == _AUTO_OR_NUMBER else ["text"],
    }
    return next(values for kind, values in kinds.items() if kind in schema["type"])


def form_params() -> dict[str, Param]:
    """Return the parameters of a DAG that runs any study."""
    return {field.name: _param(field) for field in fields()}


def _param(field: Field) -> Param:
    schema = dict(field.schema)
    if field.section is not None:
        schema["section"] = field.section
    return Param(field.start, description_md=field.description, **schema)


def document_from_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study document that the form describes.

    Empty fields are left out, and so are those that are as they were at the start: the default
    counts, and a track that does not understand the key refuses no study for it.
    """
    document: dict[str, Any] = {}
    for field in fields():
        value = params.get(field.name, field.start)
        if value in (None, "") or (value == field.start and field.path not in _REQUIRED):
            continue
        if field.schema.get("pattern") == _AUTO_OR_NUMBER and value != _AUTO:
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
