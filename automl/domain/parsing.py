"""Parsing of specifications: a document becomes a `StudySpec`, or a list of all its problems."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from automl.domain.availability import task_problems, unavailable_problems
from automl.domain.card import Card
from automl.domain.plain import plain_copy, shown, shown_key
from automl.domain.specification import Split, StudySpec
from automl.errors import ConfigError, Problem

_PLACEHOLDERS: dict[str, Any] = {
    "name": "unnamed",
    "task": "unnamed",
    "data": {"source": "unnamed"},
    "data.source": "unnamed",
    "predict": None,
    "predict.source": "unnamed",
    "predict.output": "unnamed",
}

_BESIDES_AUTO = {
    "data.image_size": "an integer from 4 to 1024",
    "final_fit.ensemble": "an integer from 1 to 16",
}
_MOST_TOLD = 100  # problems
_LONGEST_TYPO = 40
_LONGEST_MESSAGE = 500


class Purpose(Enum):
    """Purpose of a specification."""

    PUBLISH = "publish"  # versions with metrics: needs sealed test rows
    ESTIMATOR = "estimator"  # a notebook that brings its own test rows


def parse_spec(
    document: object,
    cards: Mapping[str, Card],
    *,
    purpose: Purpose = Purpose.PUBLISH,
    known: Sequence[Problem] = (),
) -> StudySpec:
    """Return the specification that `document` describes.

    Args:
        document: a mapping as read from YAML or JSON.
        cards: those of the installed tracks, by task.
        purpose: whether versions will be published, which takes sealed test rows.
        known: what is known to be wrong with the document already.

    Raises:
        ConfigError: with every problem and its key path: unknown and missing keys, wrong types
            and values, impossible combinations, and features that do not exist yet.
    """
    if not isinstance(document, Mapping):
        raise ConfigError(
            f"A study is a mapping of keys to values, not {type(document).__name__}.",
            "start the file with `name:`, `task:` and `data:`; see docs/formats/study-file.md",
            known,
        )
    try:
        plain, keys = plain_copy(document)
    except ValueError as error:
        raise ConfigError(
            f"The specification has {error}, which no study needs.", "correct it", known
        ) from error
    spec, found = _validate(_with_objective(plain, cards))
    problems = [*known, *keys]
    problems += [each for each in found if not any(_is_within(each.path, k.path) for k in known)]
    if spec is not None:
        problems += _further_problems(spec, cards, purpose, problems)
    if problems or spec is None:
        raise _refusal(plain.get("name"), problems)
    return spec


def _further_problems(
    spec: StudySpec, cards: Mapping[str, Card], purpose: Purpose, known: Sequence[Problem]
) -> list[Problem]:
    """Return what is wrong with valid values, where nothing is known to be wrong already."""
    found = [
        *_combination_problems(spec, purpose),
        *unavailable_problems(spec),
        *task_problems(spec, cards),
    ]
    told: list[Problem] = []
    for problem in found:
        if not any(_is_within(other.path, problem.path) for other in [*known, *told]):
            told.append(problem)
    return told


def _refusal(name: object, problems: Sequence[Problem]) -> ConfigError:
    """Return the error that tells the problems, the first hundred of very many."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    of_study = f" of study {shown(name)}" if isinstance(name, str) else ""
    told = list(problems[:_MOST_TOLD])
    if len(problems) > _MOST_TOLD:
        told.append(Problem("", f"{len(problems) - _MOST_TOLD} more problems are not listed"))
    return ConfigError(
        f"The specification{of_study} has {count}.",
        "correct the keys below; docs/formats/study-file.md lists them all",
        told,
    )


def _with_objective(document: Mapping[str, Any], cards: Mapping[str, Card]) -> Mapping[str, Any]:
    """Return the document with the task's own objective, if it names none."""
    task, search = document.get("task"), document.get("search", {})
    card = cards.get(task) if isinstance(task, str) else None
    if card is None or not isinstance(search, Mapping) or "objective" in search:
        return document
    return {**document, "search": {**search, "objective": card.default_objective.value}}


def _is_within(path: str, place: str) -> bool:
    """Return whether `path` is `place` or below it, so that no mistake is told twice."""
    return path == place or path.startswith(f"{place}.")


def _validate(document: Mapping[str, Any]) -> tuple[StudySpec | None, list[Problem]]:
    """Return the specification, with broken values replaced, and what was wrong with them.

    Replacing lets the checks of combinations run although some value is broken, so that all
    problems are told at once.
    """
    working: dict[str, Any] = copy.deepcopy(dict(document))
    problems: dict[str, Problem] = {}
    for _ in range(4):  # each round repairs what the one before could not see yet
        try:
            return StudySpec.model_validate(working), list(problems.values())
        except ValidationError as error:
            paths = [(_key_path(details, working), details) for details in error.errors()]
            for keys, details in paths:
                path = ".".join(shown_key(str(part)) for part in keys)
                if path not in problems:
                    may_suggest = len(problems) < _MOST_TOLD
                    message = _message(details, path) if may_suggest else details["type"]
                    problems[path] = Problem(path, message)
                _repair(working, keys)
    return None, list(problems.values())


def _key_path(details: ErrorDetails, document: object) -> tuple[str | int, ...]:
    """Return where the error is, without the branch names that pydantic adds for unions."""
    path: list[str | int] = []
    model: type[BaseModel] | None = StudySpec
    place = document
    for part in details["loc"]:
        is_there = isinstance(place, dict) and part in place
        if model is None and not isinstance(part, int) and not is_there:
            break
        path.append(part)
        model = _section_of(model, part) if model is not None else None
        place = place[part] if isinstance(place, dict) and is_there else None
    return tuple(path)


def _section_of(model: type[BaseModel], key: str | int) -> type[BaseModel] | None:
    for name, field in model.model_fields.items():
        if key in (name, field.alias):
            candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
            for candidate in candidates:
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    return candidate
    return None


def _repair(working: dict[str, Any], path: tuple[str | int, ...]) -> None:
    *parents, last = path or ("",)
    place: Any = working
    for part in parents:
        if not isinstance(place, dict) or part not in place:
            return
        place = place[part]
    dotted = ".".join(str(part) for part in path)
    if isinstance(place, list):
        place.clear()
    elif isinstance(place, dict):
        if dotted in _PLACEHOLDERS:
            place[str(last)] = copy.deepcopy(_PLACEHOLDERS[dotted])
        else:
            place.pop(last, None)


def _message(details: ErrorDetails, path: str) -> str:
    value, context = details.get("input"), details.get("ctx", {})
    kind = details["type"]
    if kind == "extra_forbidden":
        return f"unknown key{_suggestion(details)}"
    if kind == "missing":
        return "this key is required"
    if kind == "enum":
        return f"{shown(value)} is not one of {context['expected']}"
    if kind == "value_error":
        return str(context["error"])[:_LONGEST_MESSAGE]
    if kind == "string_pattern_mismatch":
        return f"{shown(value)} does not match {context['pattern']}"
    if kind in {"model_type", "dict_type"}:
        return f"{shown(value)} is not a section; write its keys below it, indented"
    if path in _BESIDES_AUTO:
        return f"{shown(value)} is neither 'auto' nor {_BESIDES_AUTO[path]}"
    return f"{shown(value)} is wrong: {details['msg'][0].lower()}{details['msg'][1:]}"


def _suggestion(details: ErrorDetails) -> str:
    *parents, key = details["loc"]
    model: type[BaseModel] | None = StudySpec
    for part in parents:
        model = _section_of(model, part) if model is not None else None
    if model is None:
        return ""
    known = [field.alias or name for name, field in model.model_fields.items()]
    is_typo = len(str(key)) <= _LONGEST_TYPO
    close = difflib.get_close_matches(str(key), known, n=1) if is_typo else []
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


def _combination_problems(spec: StudySpec, purpose: Purpose) -> list[Problem]:
    data, search = spec.data, spec.search
    problems = []

    def refuse(path: str, message: str) -> None:
        problems.append(Problem(path, message))

    held_out = data.validation_fraction + data.test_fraction
    if held_out >= 1:
        refuse(
            "data.validation_fraction",
            f"validation_fraction and test_fraction add up to {held_out:g}, "
            "which leaves no rows to train on",
        )
    if data.test_source is not None and data.test_fraction != 0:
        refuse("data.test_fraction", "with data.test_source, test_fraction must be 0")
    if purpose is Purpose.PUBLISH and data.test_source is None and data.test_fraction == 0:
        refuse("data.test_fraction", "0 leaves no test rows to measure a version on")
    for split, key in ((Split.GROUP, "group"), (Split.TIME, "time")):
        column = getattr(data, key)
        if data.split is split and column is None:
            refuse(f"data.{key}", f"split: {split} needs the column's name here")
        if data.split is not split and column is not None:
            refuse(f"data.{key}", f"only split: {split} uses it, and data.split is {data.split}")
    if search.spend.max_cost is not None and search.spend.price_per_gpu_hour is None:
        refuse("search.spend.price_per_gpu_hour", "max_cost needs a price")
    return problems
