"""Snapshots of labelled images: square tensors to learn from, and files as consumers have them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from automl.data.files import FileStore
from automl.data.snapshot import Envelope, read_checked, read_shards
from automl.data.splits import Part
from automl.domain.specification import Resize
from automl.errors import DataError
from automl.tracks.image.decode import ANY_PIXELS, decode_image


class ImageEnvelope(Envelope):
    """Envelope of a snapshot of images; its parts are those of `Part`.

    Attributes:
        classes: labels in the order of the label indices.
        image_size: side of the square images in pixels.
        image_size_reason: where the size comes from.
        resize: how an image of any shape became a square.
        counts_per_class: rows per part, per label.
        mean: per channel, of the training rows' values in 0..255.
        std: the same; 1 where all values are equal.
        test_source: where the rows of an own test set came from; None without one.
    """

    model_config = ConfigDict(extra="forbid")

    classes: tuple[str, ...]
    image_size: int
    image_size_reason: str
    resize: Resize = Resize.STRETCH
    counts_per_class: dict[str, dict[Part, int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_source: str | None = None

    @property
    def sizes(self) -> dict[str, int | None]:
        """Size of each stored file; the graph's is not told."""
        return {**super().sizes, self.keys.preprocess: None}


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A row before preprocessing.

    Attributes:
        path: how the source calls it.
        digest: of its pixels, hexadecimal; see `pixel_digest`.
        pixels: uint8 `[H, W, 3]`.
        label: index of its class.
    """

    path: str
    digest: str
    pixels: NDArray[np.uint8]
    label: int


class ImageSnapshot:
    """A stored snapshot, checked as it is read.

    Attributes:
        envelope: what it holds.
        preprocess: the serialised ONNX graph that made its tensors.
    """

    def __init__(self, store: FileStore, envelope: ImageEnvelope, preprocess: bytes) -> None:
        self._store = store
        self.envelope = envelope
        self.preprocess = preprocess

    @classmethod
    def open(cls, store: FileStore, dataset: str, snapshot: str) -> ImageSnapshot:
        """Return the snapshot; raise NotFoundError, DamagedDataError or NewerSchemaError."""
        envelope = ImageEnvelope.read(store, dataset, snapshot)
        sha256 = envelope.versions["graph_sha256"]
        graph = read_checked(store, envelope.keys.preprocess, sha256)
        return cls(store, envelope, graph)

    def tensors(self, *parts: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images uint8 `[n, S, S, 3]` and labels int64 `[n]` of the parts, in that order.

        Raises:
            DamagedDataError: a shard is not what was written.
        """
        size = self.envelope.image_size
        images = [np.zeros((0, size, size, 3), np.uint8)]
        labels = [np.zeros(0, np.int64)]
        for _, shard in read_shards(self._store, self.envelope, *parts):
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
        size, rows = self.envelope.image_size, self.envelope.counts[part]
        shape = (rows, size, size, 3)
        if rows == 0:
            return self.tensors(part)
        labels = np.zeros(rows, np.int64)
        with tempfile.TemporaryFile(prefix="automl-rows-") as file:
            images = np.memmap(file, np.uint8, "w+", shape=shape)
            done = 0
            for shard, content in read_shards(self._store, self.envelope, part):
                images[done : done + shard.rows] = content["images"]
                labels[done : done + shard.rows] = content["labels"]
                done += shard.rows
        return images, labels

    def digests(self, part: Part) -> list[str]:
        """Return the digests of a part's rows, in the order of `tensors`.

        Raises:
            DamagedDataError: a shard is not what was written.
        """
        return [
            row.tobytes().hex()
            for _, shard in read_shards(self._store, self.envelope, part)
            for row in shard["digests"]
        ]

    def size_bytes(self, part: Part) -> int:
        """Return how many bytes the images of a part take."""
        return self.envelope.counts[part] * self.envelope.image_size**2 * 3

    def files(self, *parts: Part) -> Iterator[ImageFile]:
        """Yield the rows of the parts before preprocessing, in the order of `tensors`.

        Raises:
            DataError: training rows are asked for, which do not keep their files.
            DamagedDataError: a shard is not what was written.
        """
        if Part.TRAIN in parts:
            raise DataError(
                f"Snapshot {self.envelope.id} keeps no files of training rows.", "use `tensors`"
            )
        return self._read_files(parts)

    def _read_files(self, parts: tuple[Part, ...]) -> Iterator[ImageFile]:
        for _, shard in read_shards(self._store, self.envelope, *parts):
            paths = json.loads(shard["paths"].tobytes())
            ends, encoded = shard["encoded_ends"], shard["encoded"].tobytes()
            for index, path in enumerate(paths):
                yield ImageFile(
                    path,
                    shard["digests"][index].tobytes().hex(),
                    decode_image(encoded[int(ends[index]) : int(ends[index + 1])], ANY_PIXELS),
                    int(shard["labels"][index]),
                )
