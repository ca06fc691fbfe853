"""The folder of study files: which DAG each one gets, and what is wrong with the broken ones."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from automl.domain.specification import StudySpec
from automl.errors import ConfigError
from automl.steps.study_file import load_study_file

_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class StudyFile:
    """One file of the folder.

    Attributes:
        path: where it is.
        dag_id: the DAG that it gets.
        spec: what it says; None if it is broken.
        problems: what is wrong with it.
    """

    path: Path
    dag_id: str
    spec: StudySpec | None
    problems: tuple[str, ...] = ()


def studies_folder(default: Path) -> Path:
    """Return the folder that `AUTOML_STUDIES` names, or `default`."""
    return Path(os.environ.get("AUTOML_STUDIES") or default)


def read_study_files(folder: Path) -> list[StudyFile]:
    """Return all study files of `folder`, by file name; a broken one does not touch the others."""
    files: list[StudyFile] = []
    taken: dict[str, Path] = {}
    if not folder.is_dir():
        return files
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        file = _read(path, taken)
        taken[file.dag_id] = path
        files.append(file)
    return files


def _read(path: Path, taken: dict[str, Path]) -> StudyFile:
    try:
        spec = load_study_file(path)
    except ConfigError as error:
        problems = tuple(str(problem) for problem in error.problems) or (error.message,)
        return StudyFile(path, _free_id(path.stem, taken), None, problems)
    dag_id = f"automl_{spec.name}"
    if dag_id in taken:
        problem = f"name: {spec.name!r} is the name of {taken[dag_id].name} already"
        return StudyFile(path, _free_id(path.stem, taken), None, (problem,))
    return StudyFile(path, dag_id, spec)


def _free_id(stem: str, taken: dict[str, Path]) -> str:
    dag_id = f"automl_{_NOT_IN_AN_ID.sub('_', stem)}"
    if dag_id in {"automl_search", "automl_maintenance"} or dag_id in taken:
        dag_id = f"{dag_id}.broken"
    while dag_id in taken:
        dag_id += "_"
    return dag_id


def owner_of(name: str, folder: Path) -> Path | None:
    """Return the file of `folder` that owns the study `name`, if one does."""
    for file in read_study_files(folder):
        if file.spec is not None and file.spec.name == name:
            return file.path
    return None
