"""The step `check`: settings, sources and the store, before anything is written."""

from __future__ import annotations

from pathlib import Path

from automl.domain.documents import JsonValue
from automl.errors import AutoMLError, ConfigError, Problem
from automl.runs.context import StepContext
from automl.steps.call import StepCall
from automl.storage.probe import probe_conditional_writes


def check(context: StepContext) -> dict[str, JsonValue]:
    """Check settings, sources and the store before anything is written for the study.

    Raises:
        ConfigError: with every source that may not be read or does not exist.
        StorageAccessError: the home cannot be used.
    """
    problems = []
    for key, uri in context.spec.data.locations.items():
        try:
            context.settings.check_source(uri)
            if "://" not in uri and not Path(uri).exists():
                problems.append(Problem(f"data.{key}", f"{uri} does not exist"))
        except AutoMLError as error:
            problems.append(Problem(f"data.{key}", str(error)))
    if problems:
        raise ConfigError(
            f"The data of study {context.spec.name} cannot be read.", "see below", problems
        )
    probe_conditional_writes(context.store)
    return {"study": context.spec.name, "home": context.store.uri}


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Check, and return what was checked."""
    return check(context)
