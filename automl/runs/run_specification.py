"""Specifications of runs: stored once, when the run is checked, and read by every later step."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from automl.domain.layout import StudyKeys
from automl.domain.specification import StudySpec
from automl.errors import (
    ConfigError,
    DamagedDataError,
    NewerSchemaError,
    NotFoundError,
    PreconditionFailedError,
)
from automl.runs.context import StepContext
from automl.storage.home import Home
from automl.storage.objects import ObjectStore
from automl.storage.study_log import StudyRecord

SCHEMA = 1

log = logging.getLogger(__name__)


def specification_of_run(home: Home, study: str, run: str, given: StudySpec | None) -> StudySpec:
    """Return the specification that counts for a run.

    The stored one does, whatever has become of the study file; without one the given one, and
    without that the one that the run was opened with.

    Args:
        home: where all state is kept.
        study: name of the study.
        run: id of the run.
        given: what the caller knows; None if nothing.

    Raises:
        ConfigError: there is none: the run was never checked.
        DamagedDataError: the stored document is not what was written.
        NewerSchemaError: a newer version has written it.
    """
    stored = read_specification(home.store, study, run)
    if stored is not None:
        if given is not None and given.spec_hash != stored.spec_hash:
            log.warning(
                "The specification of study %s has changed since run %s was checked: the change "
                "counts from the next run.", study, run,
            )  # fmt: skip
        return stored
    if given is not None:
        return given
    opened = StudyRecord(home.study_log(study)).refresh().run(run)
    if opened is None:
        raise ConfigError(
            f"Run {run} of study {study} was never checked: no specification is stored for it.",
            "run the step check first; in Airflow, clear the task check",
        )
    return _recorded(opened.spec, run)


def store_specification(context: StepContext) -> StudySpec:
    """Store the specification of the context's run, and return the one that counts.

    The first one that is stored stays; of a run that is open already it is the one it was opened
    with.
    """
    run = context.record.study.run(context.run)
    spec = context.spec if run is None else _recorded(run.spec, context.run)
    document = {
        "schema": SCHEMA,
        "spec_hash": spec.spec_hash,
        "spec": spec.model_dump(mode="json", by_alias=True),
    }
    key = context.keys.run(context.run).specification
    try:
        context.store.put_if_absent(key, json.dumps(document).encode())
    except PreconditionFailedError:
        stored = read_specification(context.store, spec.name, context.run)
        assert stored is not None
        return stored
    return spec


def read_specification(store: ObjectStore, study: str, run: str) -> StudySpec | None:
    """Return the specification that is stored for a run; None if there is none.

    Raises:
        DamagedDataError: the document is not what was written.
        NewerSchemaError: a newer version has written it.
    """
    key = StudyKeys(study).run(run).specification
    try:
        data = store.get(key).data
    except NotFoundError:
        return None
    try:
        document = json.loads(data)
        schema = int(document["schema"])
        if schema <= SCHEMA:
            return _intact(document)
    except (ValueError, KeyError, TypeError) as error:  # pydantic's error is a ValueError
        raise DamagedDataError(
            f"{key} holds no specification: {error}", "restore it from a backup"
        ) from error
    raise NewerSchemaError(
        f"{key} has schema {schema}; this version reads up to {SCHEMA}.", "upgrade the platform"
    )


def _intact(document: Mapping[str, Any]) -> StudySpec:
    """Return the specification in a document whose hash is right."""
    text = json.dumps(document["spec"], sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode()).hexdigest() != document["spec_hash"]:
        raise ValueError("its hash is not that of its content")
    return StudySpec.model_validate(document["spec"])


def _recorded(spec: Mapping[str, Any], run: str) -> StudySpec:
    """Return the specification that the log has of a run."""
    try:
        return StudySpec.model_validate(spec)
    except ValidationError as error:
        raise ConfigError(
            f"Run {run} was opened with a specification that this version refuses: {error}",
            "use the version of the platform that opened the run",
        ) from error
