"""Learning-curve files (docs/formats/trial-files.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from automl.domain.layout import StudyKeys
from automl.domain.training import CurvePoint
from automl.domain.trial import Trial
from automl.errors import DamagedDataError, NewerSchemaError, NotFoundError
from automl.storage.objects import ObjectStore

CURVE_SCHEMA = 3


def read_curve(store: ObjectStore, study: str, trial: Trial) -> list[CurvePoint]:
    """Return the learning curve of the trial's last attempt, empty before its first round.

    Args:
        store: the home's objects.
        study: the study's name.
        trial: one of its trials.

    Raises:
        DamagedDataError: it is not what was written.
    """
    key = StudyKeys(study).trial(trial.number, trial.attempt).curve
    try:
        data = store.get(key).data
    except NotFoundError:
        return []
    return curve_from_bytes(data, key)


def curve_to_bytes(curve: Sequence[CurvePoint]) -> bytes:
    """Return a learning curve as JSON lines, the first of which holds the others' checksum."""
    lines = "".join(json.dumps(point.to_json()) + "\n" for point in curve).encode()
    header = {"schema": CURVE_SCHEMA, "sha256": hashlib.sha256(lines).hexdigest()}
    return json.dumps(header).encode() + b"\n" + lines


def curve_from_bytes(data: bytes, where: str) -> list[CurvePoint]:
    """Return the learning curve that `curve_to_bytes` wrote, or an earlier release.

    Args:
        data: the stored bytes.
        where: their key, for messages.

    Raises:
        NewerSchemaError: a newer version wrote it.
        DamagedDataError: it is not what was written.
    """
    first, _, lines = data.partition(b"\n")
    try:
        header = json.loads(first)
        schema = int(header["schema"])
        if schema <= CURVE_SCHEMA:
            return _parse_curve(lines, header["sha256"])
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedDataError(
            f"{where} is no learning curve: {error}.",
            "delete it, and children train in full, or restore it from a backup of the home",
        ) from error
    raise NewerSchemaError(
        f"{where} has schema {schema}; this version reads up to {CURVE_SCHEMA}.",
        "upgrade the platform",
    )


def _parse_curve(lines: bytes, sha256: str) -> list[CurvePoint]:
    if hashlib.sha256(lines).hexdigest() != sha256:
        raise ValueError("its checksum does not match")
    return [CurvePoint.from_json(json.loads(line)) for line in lines.splitlines()]
