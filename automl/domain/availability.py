"""Values of the specification that nothing stands behind: no feature yet, or not in this track.

A value is refused here until what it asks for exists; whoever builds the feature removes its line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from automl.domain.card import Card
from automl.domain.plain import shown
from automl.domain.specification import (
    Preference,
    Quantization,
    StudySpec,
)
from automl.errors import Problem

_PLANNED_TASKS = frozenset({"tabular_classification", "tabular_regression"})
# Keys of `data` that no track reads: how rows are found and held out is the same for all.
BY_ANYBODY = frozenset({"source", "corrections", "gate"})

_AVAILABLE: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("data.columns", lambda value: value is None, "leave it out"),
    ("data.weights", lambda value: value is None, "leave it out"),
    ("search.prefer", lambda value: value == Preference.ACCURACY, "use accuracy"),
    ("search.spend.gpu_hours", lambda value: value is None, "leave it out"),
    ("search.spend.price_per_gpu_hour", lambda value: value is None, "leave it out"),
    ("search.spend.max_cost", lambda value: value is None, "leave it out"),
    ("search.resources.gpus", lambda value: value in {0, 1}, "use 1, or 0 for the CPU"),
    ("search.resources.memory", lambda value: value is None, "leave it out"),
    ("export.quantize", lambda value: value == Quantization.NONE, "use none"),
    ("export.max_loss", lambda value: value == 0.005, "leave it out"),
    ("export.approve", lambda value: value is False, "use false"),
    ("export.samples", lambda value: value is True, "use true"),
    ("export.sign", lambda value: value is None, "leave it out"),
    ("predict", lambda value: value is None, "leave it out"),
    ("notify", lambda value: not value, "leave it out"),
    ("retention.versions", lambda value: value == 10, "leave it out"),
    ("retention.trials", lambda value: value == 20, "leave it out"),
    ("retention.snapshots", lambda value: value == 3, "leave it out"),
)


def is_available(path: str, value: object) -> bool:
    """Return whether a feature stands behind a value of the specification.

    Args:
        path: key path, such as `search.strategy`.
        value: a value of the key, other than its default.
    """
    for place, accepts, _ in _AVAILABLE:
        if place == path:
            return accepts(value)
        if path.startswith(f"{place}."):  # of a section that can only be left out
            return False
    return True


def unavailable_problems(spec: StudySpec) -> list[Problem]:
    """Return a problem for each value of `spec` whose feature does not exist yet."""
    problems = []
    for path, is_available, instead in _AVAILABLE:
        value: Any = spec
        for key in path.split("."):
            value = getattr(value, key)
        if not is_available(value):
            told = shown(getattr(value, "value", value))
            problems.append(Problem(path, f"{told} is not available yet; {instead}"))
    return problems


def task_problems(spec: StudySpec, cards: Mapping[str, Card]) -> list[Problem]:
    """Return a problem for each value of `spec` that the track for its task cannot serve.

    Args:
        spec: the specification.
        cards: those of the installed tracks, by task.
    """
    card = cards.get(spec.task)
    if card is not None:
        return [*_track_problems(spec, card)]
    instead = f"use {' or '.join(sorted(cards))}" if cards else "no track is installed"
    if spec.task in _PLANNED_TASKS:
        return [Problem("task", f"{spec.task!r} is not available yet; {instead}")]
    return [Problem("task", f"no installed track has the task {shown(spec.task)}; {instead}")]


def _track_problems(spec: StudySpec, card: Card) -> Iterator[Problem]:
    objective, members = spec.search.objective, spec.final_fit.ensemble
    if objective not in card.objectives:
        message = f"{objective} does not fit task {spec.task}"
        if objective.is_for_classification in {
            one.is_for_classification for one in card.objectives
        }:
            known = " or ".join(sorted(card.objectives))
            message = f"{objective.value!r} is not available yet; use {known}"
        yield Problem("search.objective", message)
    if members != "auto" and members > card.most_members:
        most = "1" if card.most_members == 1 else f"at most {card.most_members}"
        yield Problem("final_fit.ensemble", f"{members} is not available yet; use auto, or {most}")
    for key, field in type(spec.data).model_fields.items():
        if key in BY_ANYBODY | card.data_keys:
            continue
        value = getattr(spec.data, key)
        if value != field.get_default(call_default_factory=True):
            told = shown(getattr(value, "value", value))
            yield Problem(f"data.{key}", f"{told} means nothing to task {spec.task}; leave it out")
