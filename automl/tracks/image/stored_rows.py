"""Rows of a stored snapshot: in blocks, which an index tells, or as older ones are, in shards."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from automl.data.blocks import read_block
from automl.data.files import FileStore
from automl.data.snapshot import Envelope, read_shards
from automl.data.splits import Part
from automl.tracks.image.index import read_index


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Rows that lie in one stored file.

    Attributes:
        places: int64 `[n]`, among the rows of the parts that were asked for.
        images: uint8 `[n, S, S, 3]`.
        labels: int64 `[n]`.
    """

    places: NDArray[np.int64]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRow:
    """A held-out row as its source has it.

    Attributes:
        path: how the source calls it.
        digest: uint8 `[32]`, of its pixels.
        label: index of its class.
        encoded: the image file.
    """

    path: str
    digest: NDArray[np.uint8]
    label: int
    encoded: bytes


@dataclass(frozen=True, slots=True, eq=False)
class ListedRows:
    """Rows without their images.

    Attributes:
        paths: how the source calls them.
        digests: uint8 `[n, 32]`, of the decoded pixels.
        labels: int64 `[n]`.
    """

    paths: Sequence[str]
    digests: NDArray[np.uint8]
    labels: NDArray[np.int64]


class StoredRows(Protocol):
    """Rows of a snapshot; what is read is checked.

    All methods raise DamagedDataError if a stored file is not what was written.
    """

    def pieces(self, parts: Sequence[Part]) -> Iterator[Piece]:
        """Yield the rows of the parts, one stored file at a time."""

    def listed(self, parts: Sequence[Part]) -> ListedRows:
        """Return the rows of the parts in their order, without their images."""

    def files(self, parts: Sequence[Part]) -> Iterator[EncodedRow]:
        """Yield the held-out rows of the parts in their order."""


def stored_rows(store: FileStore, envelope: Envelope) -> StoredRows:
    """Return the rows that an envelope describes."""
    if envelope.index is None:
        return _ShardedRows(store, envelope)
    return _BlockRows(store, envelope)


@dataclass(frozen=True, slots=True)
class _BlockRows:
    store: FileStore
    envelope: Envelope

    def pieces(self, parts: Sequence[Part]) -> Iterator[Piece]:
        index = read_index(self.store, self.envelope, parts)
        for number in np.unique(index.images[:, 0]).tolist():
            places = np.flatnonzero(index.images[:, 0] == number)
            content: Any = read_block(self.store, self.envelope.blocks[number])["images"]
            yield Piece(places, content[index.images[places, 1]], index.labels[places])

    def listed(self, parts: Sequence[Part]) -> ListedRows:
        index = read_index(self.store, self.envelope, parts)
        return ListedRows(index.paths, index.digests, index.labels)

    def files(self, parts: Sequence[Part]) -> Iterator[EncodedRow]:
        """Yield the rows from a file without a name, into which their blocks are copied first."""
        index = read_index(self.store, self.envelope, parts)
        where, spans = index.files, np.zeros((len(index.files), 2), np.int64)
        with tempfile.TemporaryFile(prefix="automl-files-") as copy:
            for number in np.unique(where[:, 0]).tolist():
                content = read_block(self.store, self.envelope.files[number])
                ends, encoded = content["encoded_ends"], content["encoded"].tobytes()
                for place in np.flatnonzero(where[:, 0] == number).tolist():
                    start, end = (int(ends[where[place, 1] + step]) for step in (0, 1))
                    spans[place] = copy.tell(), end - start
                    copy.write(encoded[start:end])
            for place, path in enumerate(index.paths):
                copy.seek(int(spans[place, 0]))
                data = copy.read(int(spans[place, 1]))
                yield EncodedRow(path, index.digests[place], int(index.labels[place]), data)


@dataclass(frozen=True, slots=True)
class _ShardedRows:
    store: FileStore
    envelope: Envelope

    def pieces(self, parts: Sequence[Part]) -> Iterator[Piece]:
        start = 0
        for shard, content in read_shards(self.store, self.envelope, *parts):
            found: Any = content
            images = found["images"].astype(np.uint8, copy=False)
            labels = found["labels"].astype(np.int64, copy=False)
            yield Piece(np.arange(start, start + shard.rows), images, labels)
            start += shard.rows

    def listed(self, parts: Sequence[Part]) -> ListedRows:
        paths: list[str] = []
        digests: list[Any] = [np.zeros((0, 32), np.uint8)]
        labels: list[Any] = [np.zeros(0, np.int64)]
        for _, content in read_shards(self.store, self.envelope, *parts):
            shard: Any = content
            paths += json.loads(shard["paths"].tobytes())
            digests.append(shard["digests"])
            labels.append(shard["labels"])
        return ListedRows(paths, np.concatenate(digests), np.concatenate(labels).astype(np.int64))

    def files(self, parts: Sequence[Part]) -> Iterator[EncodedRow]:
        for _, content in read_shards(self.store, self.envelope, *parts):
            shard: Any = content
            paths = json.loads(shard["paths"].tobytes())
            ends, encoded = shard["encoded_ends"], shard["encoded"].tobytes()
            for index, path in enumerate(paths):
                data = encoded[int(ends[index]) : int(ends[index + 1])]
                yield EncodedRow(path, shard["digests"][index], int(shard["labels"][index]), data)
