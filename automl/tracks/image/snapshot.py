"""Snapshots of labelled images: square tensors to learn from, and files as consumers have them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from automl.data.blocks import read_checked
from automl.data.files import FileStore
from automl.data.snapshot import Envelope
from automl.data.splits import Part
from automl.domain.specification import Resize
from automl.errors import DataError
from automl.tracks.image.decode import ANY_PIXELS, decode_image
from automl.tracks.image.stored_rows import stored_rows


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

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each stored file, the graph's as well."""
        return {**super().checksums, self.keys.preprocess: self.versions["graph_sha256"]}


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
        self._rows = stored_rows(store, envelope)
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
            DamagedDataError: a stored file is not what was written.
        """
        size, rows = self.envelope.image_size, sum(self.envelope.counts[part] for part in parts)
        images = np.zeros((rows, size, size, 3), np.uint8)
        return images, self._filled(images, parts)

    def mapped_tensors(self, part: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return what `tensors` returns, with the images in a file instead of in memory.

        The file has no name and vanishes with the array; one stored file at a time is in memory.

        Raises:
            DamagedDataError: a stored file is not what was written.
            OSError: the folder for temporary files (TMPDIR) has no room.
        """
        size, rows = self.envelope.image_size, self.envelope.counts[part]
        if rows == 0:
            return self.tensors(part)
        with tempfile.TemporaryFile(prefix="automl-rows-") as file:
            images = np.memmap(file, np.uint8, "w+", shape=(rows, size, size, 3))
            labels = self._filled(images, (part,))
        return images, labels

    def _filled(self, images: NDArray[np.uint8], parts: Sequence[Part]) -> NDArray[np.int64]:
        """Write the images of the parts into an array, and return their labels."""
        labels = np.zeros(len(images), np.int64)
        for piece in self._rows.pieces(parts):
            images[piece.places] = piece.images
            labels[piece.places] = piece.labels
        return labels

    def digests(self, part: Part) -> list[str]:
        """Return the digests of a part's rows, in the order of `tensors`.

        Raises:
            DamagedDataError: a stored file is not what was written.
        """
        return [row.tobytes().hex() for row in self._rows.listed((part,)).digests]

    def size_bytes(self, part: Part) -> int:
        """Return how many bytes the images of a part take."""
        return self.envelope.counts[part] * self.envelope.image_size**2 * 3

    def files(self, *parts: Part) -> Iterator[ImageFile]:
        """Yield the rows of the parts before preprocessing, in the order of `tensors`.

        Raises:
            DataError: training rows are asked for, which do not keep their files.
            DamagedDataError: a stored file is not what was written.
        """
        if Part.TRAIN in parts:
            raise DataError(
                f"Snapshot {self.envelope.id} keeps no files of training rows.", "use `tensors`"
            )
        return self._read_files(parts)

    def _read_files(self, parts: tuple[Part, ...]) -> Iterator[ImageFile]:
        for row in self._rows.files(parts):
            pixels = decode_image(row.encoded, ANY_PIXELS)
            yield ImageFile(row.path, row.digest.tobytes().hex(), pixels, row.label)
