"""The step `check`: settings, sources and the store, before anything is written."""

from __future__ import annotations

from automl.domain.documents import JsonValue
from automl.domain.facts import Origin
from automl.domain.sources import Sources
from automl.errors import ConfigError
from automl.runs.context import StepContext
from automl.runs.ownership import owner_problems
from automl.steps.call import StepCall
from automl.storage.probe import probe_conditional_writes
from automl.storage.sources import source_problems


def check(context: StepContext) -> dict[str, JsonValue]:
    """Check settings, sources and the store before anything is written for the study.

    Raises:
        ConfigError: with every source that may not be read or does not exist, and with the owner
            if the study belongs to another.
        StorageAccessError: the home cannot be used.
    """
    sources = Sources.of(context.settings, Origin.of(context.origin))
    problems = [
        *owner_problems(context),
        *source_problems(context.spec.data.locations, sources),
    ]
    if problems:
        raise ConfigError(f"Study {context.spec.name} cannot be run.", "see below", problems)
    probe_conditional_writes(context.store)
    return {"study": context.spec.name, "home": context.store.uri}


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Check, and return what was checked."""
    return check(context)
