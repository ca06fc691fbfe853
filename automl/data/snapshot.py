"""Immutable prepared datasets. The stored format is described in `docs/formats/snapshot.md`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from safetensors import SafetensorError
from safetensors.numpy import load, save

from automl.data.blocks import DAMAGED_HINT, Block, Tensors, read_checked
from automl.data.files import FileStore, SnapshotStore
from automl.data.findings import Finding
from automl.data.profile import Profile
from automl.domain.layout import SnapshotKeys
from automl.errors import (
    DamagedDataError,
    NewerSchemaError,
    PreconditionFailedError,
)

SCHEMA = 2

AnyEnvelope = TypeVar("AnyEnvelope", bound="Envelope")

log = logging.getLogger(__name__)


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class QuarantinedRow(_Stored):
    """A row that was left out, and why."""

    path: str
    reason: str


class ExcludedRow(_Stored):
    """A row that was left out since it shows nearly what a row does that is asked about later.

    Attributes:
        path: how the source calls it.
        label: its label.
        part: of the split that it would be in.
        near: how the source calls the other row.
        near_part: the part that the other row is in.
        distance: how much the two differ, 0 to 255.
    """

    path: str
    label: str
    part: str
    near: str
    near_part: str
    distance: float


class Shard(_Stored):
    """One stored file of rows of one part."""

    key: str
    part: str
    rows: int
    sha256: str
    size_bytes: int = Field(alias="bytes")


class Envelope(_Stored):
    """Description that every snapshot has; the track that wrote it adds keys of its own.

    Keys that a reader does not know are kept, in `model_extra`: they are the track's, which reads
    its snapshots as a subclass that names them.

    Attributes:
        schema_version: of the stored format; `schema` in the file.
        id: names the content.
        dataset: whose snapshot this is.
        counts: rows per part; the parts are the track's.
        quarantined: rows that cannot be used.
        excluded: rows that would tell what is asked about later.
        findings: what is odd about the source.
        thresholds: what the split fixed for rows to come, per group of rows such as a class: the
            ends of the parts' intervals.
        shards: files with the rows of one part each.
        blocks: files with rows that other snapshots have, too; which are its own, `index` tells.
        files: the same, of rows before preprocessing.
        index: what each row is, and where; None where all rows are in shards.
        sealed: the same of rows that nothing may decide by before the winner is chosen; None where
            `index` has all.
        versions: of whatever made the stored rows from the source's.
        source: where the rows came from.
        profile: what the snapshot is compared with others by; None where an earlier release, or a
            track without profiles, made it.
        reused: the snapshot existed before this call; not stored.
    """

    model_config = ConfigDict(extra="allow")

    schema_version: int = Field(SCHEMA, alias="schema")
    id: str
    dataset: str
    counts: dict[str, int]
    quarantined: tuple[QuarantinedRow, ...] = ()
    excluded: tuple[ExcludedRow, ...] = ()
    findings: tuple[Finding, ...] = ()
    thresholds: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    shards: tuple[Shard, ...] = ()
    blocks: tuple[Block, ...] = ()
    files: tuple[Block, ...] = ()
    index: Block | None = None
    sealed: Block | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    source: str
    profile: Profile | None = None
    reused: bool = Field(default=False, exclude=True)

    @property
    def keys(self) -> SnapshotKeys:
        """Its own key, and those of all that is stored with it."""
        return SnapshotKeys(self.dataset, self.id)

    @property
    def sizes(self) -> dict[str, int | None]:
        """Size of each stored file but the envelope, by key; None where the envelope has it not."""
        return {each.key: each.size_bytes for each in self._stored}

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each stored file but the envelope, by key."""
        return {each.key: each.sha256 for each in self._stored}

    @property
    def _stored(self) -> tuple[Shard | Block, ...]:
        indices = (each for each in (self.index, self.sealed) if each is not None)
        return (*self.shards, *self.blocks, *self.files, *indices)

    def to_bytes(self) -> bytes:
        """Return the envelope as stored."""
        return (self.model_dump_json(by_alias=True, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> Self:
        """Return the envelope stored under `key`.

        Raises:
            NewerSchemaError: a newer version of the platform wrote it.
            DamagedDataError: it is no envelope, or none of this track.
        """
        try:
            schema = json.loads(data)["schema"]
            if schema <= SCHEMA:
                return cls.model_validate_json(data)
        except ValidationError as error:
            wrong = "; ".join(f"{_place(each)}: {each['msg']}" for each in error.errors())
            raise DamagedDataError(
                f"{key} describes no snapshot: {wrong}.", DAMAGED_HINT
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedDataError(
                f"{key} describes no snapshot: {error}.", DAMAGED_HINT
            ) from error
        raise NewerSchemaError(
            f"{key} has schema {schema}, this version reads up to {SCHEMA}.", "upgrade this worker"
        )

    @classmethod
    def read(cls, store: FileStore, dataset: str, snapshot: str) -> Self:
        """Return the envelope of a stored snapshot.

        Raises:
            NotFoundError: there is no such snapshot.
            DamagedDataError, NewerSchemaError: as `from_bytes` does.
        """
        key = SnapshotKeys(dataset, snapshot).envelope
        return cls.from_bytes(store.get(key).data, key)


def _place(error: ErrorDetails) -> str:
    return ".".join(map(str, error["loc"]))


def write_shard(
    store: SnapshotStore, keys: SnapshotKeys, part: str, rows: int, tensors: Tensors
) -> Shard:
    """Store rows of one part and return the shard; equal content has an equal key.

    Args:
        store: of the snapshot.
        keys: of the snapshot.
        part: that all rows belong to.
        rows: their number.
        tensors: what is stored of them, by name.
    """
    content = save(dict(tensors))
    sha256 = hashlib.sha256(content).hexdigest()
    key = keys.shard(part, sha256)
    store.put(key, content)
    return Shard(key=key, part=part, rows=rows, sha256=sha256, size_bytes=len(content))


def write_envelope(store: SnapshotStore, envelope: AnyEnvelope) -> AnyEnvelope:
    """Make a snapshot exist whose shards are stored; return the envelope that does.

    Where another process was quicker, that is the other's, which describes the same content.
    """
    try:
        store.put_if_absent(envelope.keys.envelope, envelope.to_bytes())
    except PreconditionFailedError:
        try:
            kept = type(envelope).read(store, envelope.dataset, envelope.id)
        except DamagedDataError:
            store.put(envelope.keys.envelope, envelope.to_bytes())
        else:
            log.info("snapshot %s was finished by another process", envelope.id)
            return kept.model_copy(update={"reused": True})
    rows = sum(envelope.counts.values())
    log.info("snapshot %s of %s has %d rows", envelope.id, envelope.dataset, rows)
    return envelope


def read_shards(
    store: FileStore, envelope: Envelope, *parts: str
) -> Iterator[tuple[Shard, Tensors]]:
    """Yield the shards of the parts, in that order, with their tensors.

    Raises:
        DamagedDataError: a shard is not what was written.
    """
    for part in parts:
        for shard in envelope.shards:
            if shard.part != part:
                continue
            content = read_checked(store, shard.key, shard.sha256)
            try:
                yield shard, load(content)
            except SafetensorError as error:
                raise DamagedDataError(f"{shard.key}: {error}.", DAMAGED_HINT) from error
