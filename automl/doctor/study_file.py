"""Checks of one study file: what it says, whether its data may be read, and the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from automl.domain.facts import Origin, OriginKind
from automl.domain.settings import Settings
from automl.domain.sources import Sources
from automl.domain.specification import StudySpec
from automl.errors import AutoMLError, ConfigError, Problem
from automl.storage.open import open_home
from automl.storage.probe import probe_conditional_writes
from automl.storage.sources import source_problems

_PATIENCE_S = 10.0


def check_study_file(
    settings: Settings, read_spec: Callable[[], StudySpec], locations: Mapping[str, str]
) -> dict[str, Any]:
    """Return the document of `automl check`, if nothing is wrong.

    Args:
        settings: of the installation.
        read_spec: returns the specification, or raises ConfigError with every problem.
        locations: places that the file names, by key, whatever else is wrong with it.

    Raises:
        ConfigError: with everything that is wrong with the file, its data and the store.
        StorageError: nothing is wrong but the store.
    """
    spec: StudySpec | None = None
    problems: list[Problem] = []
    try:
        spec = read_spec()
    except ConfigError as error:
        problems += error.problems or [Problem("", error.message)]
    told = {problem.path for problem in problems}
    problems += [each for each in _data_problems(settings, locations) if each.path not in told]
    try:
        probe_conditional_writes(open_home(settings, _PATIENCE_S).store)
    except AutoMLError as error:
        if not problems:
            raise
        problems.append(Problem("", str(error)))
    if spec is None or problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"The study file has {count}.", "correct what is listed", problems)
    return _document(spec, settings)


def _data_problems(settings: Settings, locations: Mapping[str, str]) -> Iterator[Problem]:
    try:
        yield from source_problems(locations, Sources.of(settings, Origin(OriginKind.CLI)))
    except AutoMLError as error:
        yield Problem("AUTOML_SOURCES", str(error))


def _document(spec: StudySpec, settings: Settings) -> dict[str, Any]:
    return {
        "schema": 1,
        "ok": True,
        "study": spec.name,
        "task": spec.task,
        "schedule": spec.schedule,
        "timezone": spec.timezone,
        "home": settings.home,
    }
