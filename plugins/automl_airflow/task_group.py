"""A study within anybody's own DAG: `study_task_group`, the tasks of a search as one group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import TaskGroup

from automl.domain.specification import StudySpec
from automl.errors import ConfigError, Problem
from automl.steps.study_file import study_spec
from automl_airflow.dag_builder import DEFAULT_ARGS, Wiring, trains_on_cpu, wire
from automl_airflow.study_files import read_one


def study_task_group(
    group_id: str = "study",
    *,
    study_file: Path | str | None = None,
    spec: Mapping[str, Any] | None = None,
    default_args: Mapping[str, Any] | None = None,
    tooltip: str = "",
) -> TaskGroup:
    """Return a group with the tasks of a search, `check` to `promote`, for the surrounding DAG.

    Put it between tasks of your own: `fetch() >> study_task_group(spec=...) >> announce()`. What
    is wrong with the study does not keep the DAG from being imported: the group's `check` fails
    with every problem. A study belongs to the DAG that opens it first.

    Args:
        group_id: the group's id, which the ids of its tasks begin with.
        study_file: path of a study file, outside the folder of study files. Its `schedule` and
            `timezone` do not count here.
        spec: the study as a mapping of the same form, with absolute paths; instead of a file.
        default_args: arguments for all tasks of the group, on top of the platform's.
        tooltip: text that the graph shows for the group.

    Raises:
        ConfigError: neither or both of `study_file` and `spec` are given.
    """
    found, problems, place = _study(group_id, study_file, spec)
    priority = 1 if found is None else found.search.priority
    arguments = {**DEFAULT_ARGS, "priority_weight": priority, **(default_args or {})}
    group = TaskGroup(group_id=group_id, default_args=arguments, tooltip=tooltip)  # type: ignore[arg-type] # of its converter
    with group:
        wire(
            Wiring(
                study_file=place,
                document=None if spec is None else dict(spec),
                problems=tuple(str(problem) for problem in problems),
                on_cpu=trains_on_cpu(found),
            )
        )
    return group


def _study(
    group_id: str, study_file: Path | str | None, spec: Mapping[str, Any] | None
) -> tuple[StudySpec | None, tuple[Problem, ...], str | None]:
    """Return the specification or what is wrong with it, and the place of its file, if any."""
    if (study_file is None) == (spec is None):
        raise ConfigError(
            f"The group {group_id!r} has {'neither' if spec is None else 'both'} of study_file "
            "and spec.",
            "give it one of them",
        )
    if study_file is not None:
        file = read_one(Path(study_file).absolute())
        return file.spec, file.problems, file.place
    try:
        return study_spec(spec), (), None
    except ConfigError as error:
        return None, error.problems or (Problem("", error.message),), None
