"""The step `check`: settings, sources and the store, before anything is written."""

from __future__ import annotations

from automl.domain.checked_run import CheckedRun
from automl.domain.documents import JsonValue
from automl.domain.facts import Origin
from automl.domain.sources import Sources
from automl.errors import ConfigError
from automl.runs.context import StepContext
from automl.runs.ownership import owner_problems
from automl.runs.run_specification import store_specification
from automl.steps.call import StepCall
from automl.steps.specs import STEPS
from automl.storage.probe import probe_conditional_writes
from automl.storage.sources import source_problems


def check(context: StepContext) -> None:
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


def step(context: StepContext, call: StepCall) -> JsonValue:
    """Check, store the run's specification, and return what its later tasks go by."""
    check(context)
    spec = store_specification(context)
    limits = {step.name: step.limit.seconds(spec) for step in STEPS.values()}
    return CheckedRun.of(spec, context.store.uri, limits).to_json()
