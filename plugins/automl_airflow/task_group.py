"""A study within anybody's own DAG: `study_task_group`, the tasks of a search as one group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow.sdk import TaskGroup

from automl.errors import ConfigError, Problem
from automl.steps.study_file import study_spec
from automl_airflow.dag_builder import DEFAULT_ARGS, Wiring, wire
from automl_airflow.study_files import StudyFile, read_one


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
    study = _study(group_id, study_file, spec)
    arguments = {**DEFAULT_ARGS, "priority_weight": study.priority, **(default_args or {})}
    group = TaskGroup(group_id=group_id, default_args=arguments, tooltip=tooltip)  # type: ignore[arg-type] # of its converter
    with group:
        wire(
            Wiring(
                study_file=None if study_file is None else study.place,
                document=None if spec is None else dict(spec),
                problems=tuple(str(problem) for problem in study.problems),
                on_cpu=bool(study.on_cpu),
                cpus=study.cpus,
            )
        )
    return group


def _study(
    group_id: str, study_file: Path | str | None, spec: Mapping[str, Any] | None
) -> StudyFile:
    """Return what is known of the study, and what is wrong with it."""
    if (study_file is None) == (spec is None):
        raise ConfigError(
            f"The group {group_id!r} has {'neither' if spec is None else 'both'} of study_file "
            "and spec.",
            "give it one of them",
        )
    if study_file is not None:
        return read_one(Path(study_file).absolute())
    nowhere = StudyFile(Path(), "", None)
    try:
        found = study_spec(spec)
    except ConfigError as error:
        return replace(nowhere, problems=error.problems or (Problem("", error.message),))
    return replace(nowhere, spec=found, on_cpu=found.search.resources.gpus == 0)
