"""What a published version says about itself (docs/formats/bundle.md)."""

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
    """Whose version number it is."""

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
    """Which version consumers load.

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
    """How far the file's outputs are from the network's.

    Attributes:
        rows: images compared.
        max_abs_diff: largest difference of two probabilities.
        label_mismatches: labels that differ although the network's two best probabilities are
            at least 2e-4 apart.
        ok: the difference is at most 1e-4 and no label mismatches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    rows: int
    max_abs_diff: float
    label_mismatches: int
    ok: bool


class ExportRecord(Record):
    """What the step `export` leaves for the step `evaluate`, beside the run.

    Attributes:
        parity: network against file on raw validation images.
        files: what it stored under the version.
    """

    parity: Parity
    files: Mapping[str, StoredFile]


class InputFormat(BaseModel):
    """What happens to an encoded image before the network sees it.

    Attributes:
        decode: the decoding rules.
        resize: the resize inside `model.onnx`.
        size: height and width in pixels after it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    decode: str
    resize: str
    size: int


class VersionFacts(Record):
    """The manifest's fields that the registry does not fill in itself.

    Attributes:
        run: the run that published it.
        trial: number of the trial it was trained from.
        snapshot: id of the training data.
        task: `image-classification`.
        objective: what the search minimised or maximised.
        labels: classes in the order of the probabilities.
        input: decoding and resizing.
        metrics: on the report rows.
        selected_on: the report rows also decided about promotions.
        decisions: how often they did so far, this version's included.
        parity: network against file on raw validation images.
        latency_ms: p50 and p95 by batch size, and the `threads` used.
        parameters: learned scalars.
        made_by: versions of the platform and its libraries, `at` (ISO 8601).
    """

    run: str
    trial: int
    snapshot: str
    task: str
    objective: str
    labels: tuple[str, ...]
    input: InputFormat
    metrics: Mapping[str, Interval]
    selected_on: bool
    decisions: int | None = None
    parity: Parity
    latency_ms: Mapping[str, Mapping[str, float] | int]
    parameters: int
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
