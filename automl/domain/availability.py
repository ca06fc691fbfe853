"""Which values of the specification have no feature behind them yet.

A value is refused here until what it asks for exists; whoever builds the feature removes its line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from automl.domain.objective import Objective
from automl.domain.specification import (
    Preference,
    Quantization,
    Resize,
    Split,
    StudySpec,
    Task,
)
from automl.errors import Problem

_TABLE_SUFFIXES = frozenset({".parquet", ".pq"})

_AVAILABLE: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("task", lambda value: value is Task.IMAGE_CLASSIFICATION, "use image_classification"),
    (
        "data.source",
        lambda value: PurePosixPath(value).suffix.lower() not in _TABLE_SUFFIXES,
        "use a CSV manifest, a folder of class folders or an .npz file",
    ),
    ("data.test_source", lambda value: value is None, "use data.test_fraction"),
    ("data.resize", lambda value: value is Resize.STRETCH, "use stretch"),
    ("data.split", lambda value: value in {Split.STRATIFIED, Split.RANDOM}, "use stratified"),
    ("data.gate.on_change", lambda value: value == "warn", "leave it out"),
    ("search.objective", lambda value: value is Objective.ACCURACY, "use accuracy"),
    ("search.prefer", lambda value: value is Preference.ACCURACY, "use accuracy"),
    ("search.spend.gpu_hours", lambda value: value is None, "leave it out"),
    ("search.spend.price_per_gpu_hour", lambda value: value is None, "leave it out"),
    ("search.spend.max_cost", lambda value: value is None, "leave it out"),
    ("search.resources.gpus", lambda value: value in {0, 1}, "use 1, or 0 for the CPU"),
    ("search.resources.memory", lambda value: value is None, "leave it out"),
    ("final_fit.ensemble", lambda value: value == 1, "use 1"),
    ("export.quantize", lambda value: value is Quantization.NONE, "use none"),
    ("export.max_loss", lambda value: value == 0.005, "leave it out"),
    ("export.approve", lambda value: value is False, "use false"),
    ("export.samples", lambda value: value is True, "use true"),
    ("predict", lambda value: value is None, "leave it out"),
    ("notify", lambda value: not value, "leave it out"),
    ("retention.versions", lambda value: value == 10, "leave it out"),
    ("retention.trials", lambda value: value == 20, "leave it out"),
    ("retention.snapshots", lambda value: value == 3, "leave it out"),
)


def unavailable_problems(spec: StudySpec) -> list[Problem]:
    """Return a problem for each value of `spec` whose feature does not exist yet."""
    problems = []
    for path, is_available, instead in _AVAILABLE:
        value: Any = spec
        for key in path.split("."):
            value = getattr(value, key)
        if not is_available(value):
            shown = getattr(value, "value", value)
            problems.append(Problem(path, f"{shown!r} is not available yet; {instead}"))
    return problems
