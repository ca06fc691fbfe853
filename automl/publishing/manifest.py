"""Documents of a published version about itself (docs/formats/bundle.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from automl.errors import DamagedDataError, NewerSchemaError
from automl.scoring.interval import Interval

SCHEMA = 1

_R = TypeVar("_R", bound="Record")


class Record(BaseModel):
    """A versioned JSON document of the registry."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        serialize_by_alias=True,
        validate_by_name=True,
        defer_build=True,
    )

    schema_version: int = Field(SCHEMA, alias="schema")

    def to_bytes(self) -> bytes:
        """Return the document's bytes."""
        return self.model_dump_json(indent=2).encode()


class Claim(Record):
    """Claim of a run to a version number."""

    run: str


class Promotion(Record):
    """One change of the champion.

    Attributes:
        who: the run or the person.
        when: ISO 8601, UTC.
        why: one sentence.
        from_version: the champion before, None for the first.
        to_version: the champion from now on.
    """

    who: str
    when: str
    why: str
    from_version: int | None = Field(alias="from")
    to_version: int = Field(alias="to")


class Champion(Record):
    """Version that consumers load.

    Attributes:
        version: its number.
        uri: of `model.onnx`, relative to `champion.json`.
        sha256: of `model.onnx`.
        promoted_at: ISO 8601, UTC.
        promotion: number of the promotion that made it champion.
    """

    version: int
    uri: str
    sha256: str
    promoted_at: str
    promotion: int


class StoredFile(BaseModel):
    """Size and checksum of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    bytes: int
    sha256: str


class Parity(BaseModel):
    """Distance of a file's outputs from what its members compute.

    Attributes:
        rows: how many were compared.
        max_abs_diff: largest difference of two probabilities, or of two values.
        label_mismatches: labels that differ although the members' two best probabilities are not
            that close.
        ok: both are within the track's tolerance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    rows: int
    max_abs_diff: float
    label_mismatches: int
    ok: bool


class ExportRecord(Record):
    """Record that the step `export` leaves for the step `evaluate`, beside the run.

    Attributes:
        parity: members against file on raw held-out rows.
        files: what it stored under the version.
    """

    parity: Parity
    files: Mapping[str, StoredFile]


class Column(BaseModel):
    """One input of a file that reads the columns of a table.

    Attributes:
        name: of the column and the input.
        dtype: of its values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    dtype: str


def _is_empty(value: object) -> bool:
    return value is None or value == () or value == {}


class VersionFacts(Record):
    """The manifest's fields that the registry does not fill in itself.

    What a file does not have is left out of the document.

    Attributes:
        run: the run that published it.
        trial: number of the trial it was fitted from; of the first one where it blends several.
        snapshot: id of the training data.
        task: names the track that made it.
        objective: what the search minimised or maximised.
        labels: classes in the order of the probabilities; empty for values.
        columns: the columns that it reads; empty where the input is no table.
        input: what happens to an input before the file sees it; empty for tables.
        metrics: on the report rows.
        selected_on: the report rows also decided about promotions.
        decisions: how often they did so far, this version's included.
        parity: members against file on raw held-out rows.
        latency_ms: p50 and p95 by batch size, and the `threads` used.
        parameters: learned scalars; None where they are not counted.
        made_by: versions of the platform and its libraries, `at` (ISO 8601).
    """

    run: str
    trial: int
    snapshot: str
    task: str
    objective: str
    labels: tuple[str, ...] = Field((), exclude_if=_is_empty)
    columns: tuple[Column, ...] = Field((), exclude_if=_is_empty)
    input: Mapping[str, str | int] = Field(default_factory=dict, exclude_if=_is_empty)
    metrics: Mapping[str, Interval]
    selected_on: bool
    decisions: int | None = None
    parity: Parity
    latency_ms: Mapping[str, Mapping[str, float] | int]
    parameters: int | None = Field(None, exclude_if=_is_empty)
    made_by: Mapping[str, str]


class Manifest(VersionFacts):
    """A published version: its facts, and a checksum of each of its files."""

    study: str
    version: int
    files: Mapping[str, StoredFile]


def parse_record(kind: type[_R], data: bytes, key: str) -> _R:
    """Return a stored document.

    Raises:
        NewerSchemaError: a newer version wrote it.
        DamagedDataError: it is no such document.
    """
    try:
        document = json.loads(data)
        schema = int(document["schema"])
        if schema <= SCHEMA:
            return kind.model_validate_json(data)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise DamagedDataError(
            f"{key} is no {kind.__name__.lower()}: {error}", "restore it from a backup"
        ) from error
    raise NewerSchemaError(
        f"{key} has schema {schema}; this version reads up to {SCHEMA}.", "upgrade the platform"
    )
