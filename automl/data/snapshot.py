"""Immutable prepared datasets. The stored format is described in `docs/formats/snapshot.md`."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from automl.data.files import FileStore
from automl.data.splits import PARTS, Part
from automl.domain.layout import SnapshotKeys
from automl.errors import DamagedDataError, DataError, NewerSchemaError
from automl.tracks.image.decode import decode_image

__all__ = ["Part", "QuarantinedRow", "RawRow", "Shard", "Snapshot", "SnapshotManifest"]

SCHEMA = 1
_DAMAGED_HINT = "delete the snapshot's folder; the next run prepares it again"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class QuarantinedRow(_Stored):
    """A row that was left out, and why."""

    path: str
    reason: str


class Shard(_Stored):
    """One stored file of rows."""

    key: str
    part: Part
    rows: int
    sha256: str
    size_bytes: int = Field(alias="bytes")


class SnapshotManifest(_Stored):
    """What a snapshot holds.

    Attributes:
        schema_version: of the stored format; `schema` in the file.
        id: names the content.
        dataset: whose snapshot this is.
        classes: labels in the order of the label indices.
        image_size: side of the square images in pixels.
        image_size_reason: where the size comes from.
        counts: rows per part.
        counts_per_class: rows per part, per label.
        quarantined: rows left out.
        thresholds: per label, the ends of the parts' intervals.
        shards: files with the rows.
        versions: of the decoder, runtime and graph that made the tensors.
        source: where the rows came from.
        mean: per channel, of the training rows' values in 0..255.
        std: the same; 1 where all values are equal.
        reused: the snapshot existed before this call; not stored.
    """

    schema_version: int = Field(SCHEMA, alias="schema")
    id: str
    dataset: str
    classes: tuple[str, ...]
    image_size: int
    image_size_reason: str
    counts: dict[Part, int]
    counts_per_class: dict[str, dict[Part, int]]
    quarantined: tuple[QuarantinedRow, ...]
    thresholds: dict[str, tuple[float, ...]]
    shards: tuple[Shard, ...]
    versions: dict[str, str]
    source: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reused: bool = Field(default=False, exclude=True)

    def to_bytes(self) -> bytes:
        """Return the manifest as stored."""
        return (self.model_dump_json(by_alias=True, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> SnapshotManifest:
        """Return the manifest stored under `key`.

        Raises:
            NewerSchemaError: a newer version of the platform wrote it.
            DamagedDataError: it is no manifest.
        """
        try:
            raw = json.loads(data)
            schema = raw["schema"]
            if schema <= SCHEMA:
                return cls.model_validate_json(data)
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise DamagedDataError(f"{key} is no manifest: {error}.", _DAMAGED_HINT) from error
        raise NewerSchemaError(
            f"{key} has schema {schema}, this version reads up to {SCHEMA}.", "upgrade this worker"
        )


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row before preprocessing: its pixels are uint8 `[H, W, 3]`."""

    path: str
    pixels: NDArray[np.uint8]
    label: int


class Snapshot:
    """A stored snapshot, checked as it is read.

    Attributes:
        manifest: what it holds.
        preprocess: the serialised ONNX graph that made its tensors.
    """

    def __init__(self, store: FileStore, manifest: SnapshotManifest, preprocess: bytes) -> None:
        self._store = store
        self.manifest = manifest
        self.preprocess = preprocess

    @classmethod
    def open(cls, store: FileStore, dataset: str, snapshot_id: str) -> Snapshot:
        """Return the snapshot; raise NotFoundError, DamagedDataError or NewerSchemaError."""
        manifest = read_manifest(store, dataset, snapshot_id)
        key = SnapshotKeys(dataset, snapshot_id).preprocess
        graph = store.get(key).data
        _check_sha256(graph, manifest.versions["graph_sha256"], key)
        return cls(store, manifest, graph)

    def tensors(self, *parts: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images uint8 `[n, S, S, 3]` and labels int64 `[n]` of the parts, in that order.

        Raises:
            DamagedDataError: a shard is not what was written.
        """
        size = self.manifest.image_size
        images = [np.zeros((0, size, size, 3), np.uint8)]
        labels = [np.zeros(0, np.int64)]
        for _, shard in self._shards(parts):
            images.append(shard["images"].astype(np.uint8, copy=False))
            labels.append(shard["labels"].astype(np.int64, copy=False))
        return np.concatenate(images), np.concatenate(labels)

    def mapped_tensors(self, part: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return what `tensors` returns, with the images in a file instead of in memory.

        The file has no name and vanishes with the array; one shard at a time is in memory.

        Raises:
            DamagedDataError: a shard is not what was written.
            OSError: the folder for temporary files (TMPDIR) has no room.
        """
        size, rows = self.manifest.image_size, self.manifest.counts[part]
        shape = (rows, size, size, 3)
        if rows == 0:
            return self.tensors(part)
        labels = np.zeros(rows, np.int64)
        with tempfile.TemporaryFile(prefix="automl-rows-") as file:
            images = np.memmap(file, np.uint8, "w+", shape=shape)
            done = 0
            for shard, content in self._shards((part,)):
                images[done : done + shard.rows] = content["images"]
                labels[done : done + shard.rows] = content["labels"]
                done += shard.rows
        return images, labels

    def size_bytes(self, part: Part) -> int:
        """Return how many bytes the images of a part take."""
        return self.manifest.counts[part] * self.manifest.image_size**2 * 3

    def raw_rows(self, *parts: Part) -> Iterator[RawRow]:
        """Yield the rows of the parts before preprocessing, in the order of `tensors`.

        Raises:
            DataError: training rows are asked for, which do not keep their files.
            DamagedDataError: a shard is not what was written.
        """
        if Part.TRAIN in parts:
            raise DataError(
                f"Snapshot {self.manifest.id} keeps no files of training rows.", "use `tensors`"
            )
        return self._read_raw(parts)

    def _read_raw(self, parts: tuple[Part, ...]) -> Iterator[RawRow]:
        for _, shard in self._shards(parts):
            paths = json.loads(shard["paths"].tobytes())
            ends, encoded = shard["encoded_ends"], shard["encoded"].tobytes()
            for index, path in enumerate(paths):
                data = encoded[int(ends[index]) : int(ends[index + 1])]
                yield RawRow(path, decode_image(data), int(shard["labels"][index]))

    def _shards(
        self, parts: tuple[Part, ...]
    ) -> Iterator[tuple[Shard, dict[str, NDArray[np.generic]]]]:
        for part in parts:
            for shard in self.manifest.shards:
                if shard.part is not part:
                    continue
                content = self._store.get(shard.key).data
                _check_sha256(content, shard.sha256, shard.key)
                try:
                    yield shard, load(content)
                except SafetensorError as error:
                    raise DamagedDataError(f"{shard.key}: {error}.", _DAMAGED_HINT) from error


def read_manifest(store: FileStore, dataset: str, snapshot_id: str) -> SnapshotManifest:
    """Return a snapshot's manifest; raise NotFoundError if there is no such snapshot."""
    key = SnapshotKeys(dataset, snapshot_id).manifest
    return SnapshotManifest.from_bytes(store.get(key).data, key)


def count_rows(parts: Sequence[Part]) -> dict[Part, int]:
    """Return the number of rows per part, every part named."""
    return {part: parts.count(part) for part in PARTS}


def _check_sha256(content: bytes, expected: str, key: str) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise DamagedDataError(
            f"{key} has SHA-256 {actual}, its manifest says {expected}.", _DAMAGED_HINT
        )
