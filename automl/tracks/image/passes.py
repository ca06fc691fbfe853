"""Tasks of Dask workers: look at every row once, then write shards.

Everything here is a module-level function of picklable values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automl.data.files import FileStore, SnapshotStore
from automl.data.snapshot import Shard, write_shard
from automl.data.splits import Part
from automl.domain.layout import SnapshotKeys
from automl.errors import DataError, NotFoundError, StorageAccessError
from automl.tracks.image.decode import decode_image, encode_png, pixel_digest
from automl.tracks.image.resize import ImagePreprocessor
from automl.tracks.image.sources import Listing, SourceRow
from automl.tracks.image.statistics import row_statistics

_PIXEL_BYTES = 4  # of a file without compression: eight bits of four channels
_OTHER_BYTES = 16 * 2**20  # of its metadata


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Rows to read on a worker.

    Attributes:
        store: holds the rows' files.
        rows: as the source names them.
        pixels: uint8 `[n, H, W, C]` of these rows, or None if they are files.
        most_pixels: that an image in a file may have.
    """

    store: FileStore
    rows: tuple[SourceRow, ...]
    pixels: NDArray[np.uint8] | None
    most_pixels: int

    @classmethod
    def of(cls, listing: Listing, indices: Sequence[int], most_pixels: int) -> RowChunk:
        """Return the rows at `indices`."""
        pixels = None if listing.pixels is None else listing.pixels[np.asarray(indices, dtype=int)]
        rows = tuple(listing.rows[index] for index in indices)
        return cls(listing.store, rows, pixels, most_pixels)

    def read(self, index: int) -> tuple[NDArray[np.uint8], bytes | None]:
        """Return a row's pixels, uint8 `[H, W, 3]`, and its encoded bytes if it is a file.

        Raises:
            DataError: the row cannot be used; the message is the reason.
        """
        row = self.rows[index]
        if row.problem:
            raise DataError(row.problem)
        if self.pixels is not None:
            image = self.pixels[index]
            grey = image.shape[2] == 1
            return np.ascontiguousarray(np.repeat(image, 3, axis=2) if grey else image), None
        most_bytes = _PIXEL_BYTES * self.most_pixels + _OTHER_BYTES
        if row.size_bytes > most_bytes:
            raise DataError(
                f"the file has {row.size_bytes:,} bytes, more than the {most_bytes:,} that an "
                "image of data.max_pixels takes"
            )
        try:
            data = self.store.get(row.key).data
        except NotFoundError as error:
            raise DataError("the file vanished while it was read") from error
        return decode_image(data, self.most_pixels), data


@dataclass(frozen=True, slots=True)
class Inspected:
    """Findings of the first pass about a row; `problem` is "" if it can be used.

    `statistics` are in the order of `STATISTICS`; none of a row that cannot be used.
    """

    digest: str
    height: int
    width: int
    problem: str
    statistics: tuple[float, ...] = ()


def inspect_rows(chunk: RowChunk) -> list[Inspected]:
    """Return what each row of the chunk holds, in order.

    Raises:
        StorageAccessError: the store lets nothing be read any more, not only single files.
    """
    found, denied = [], None
    for index in range(len(chunk.rows)):
        try:
            pixels, _ = chunk.read(index)
        except DataError as error:
            found.append(Inspected("", 0, 0, error.message))
        except StorageAccessError as error:
            denied = error
            found.append(Inspected("", 0, 0, f"the file may not be read: {error.message}"))
        else:
            height, width = pixels.shape[:2]
            statistics = tuple(row_statistics(pixels).values())
            found.append(Inspected(pixel_digest(pixels), height, width, "", statistics))
    if denied is not None:
        readable = next((index for index, seen in enumerate(found) if not seen.problem), None)
        if readable is None:
            raise denied
        chunk.read(readable)
    return found


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to build and store.

    Attributes:
        chunk: its rows, sorted by digest.
        digests: of the rows' pixels, as the first pass saw them.
        labels: index of each row's class.
        part: that all rows belong to.
        size: side of its images in pixels.
        graph: the preprocessing graph, which makes them.
        store: where the shard goes.
        keys: of the snapshot.
    """

    chunk: RowChunk
    digests: tuple[str, ...]
    labels: tuple[int, ...]
    part: Part
    size: int
    graph: bytes
    store: SnapshotStore
    keys: SnapshotKeys


@dataclass(frozen=True, slots=True)
class BuiltShard:
    """A stored shard, and exact sums of its pixels per channel."""

    shard: Shard
    sums: tuple[int, ...]
    square_sums: tuple[int, ...]


def build_shard(task: ShardTask) -> BuiltShard:
    """Resize the task's rows, store them as one shard, and return what was stored.

    Raises:
        DataError: a row is not what it was in the first pass.
    """
    preprocess = ImagePreprocessor(task.graph)
    images = np.empty((len(task.digests), task.size, task.size, 3), np.uint8)
    sums, square_sums = np.zeros(3, np.int64), np.zeros(3, np.int64)
    encoded = []
    for index, digest in enumerate(task.digests):
        pixels, data = task.chunk.read(index)
        if pixel_digest(pixels) != digest:
            raise DataError(
                f"{task.chunk.rows[index].path} changed while the dataset was read.",
                "run it again once the dataset is complete",
            )
        images[index] = preprocess(pixels[np.newaxis])[0]
        values = images[index].reshape(-1, 3).astype(np.int64)  # of one image: 24 bytes a pixel
        sums += values.sum(axis=0)
        square_sums += (values * values).sum(axis=0)
        if task.part is not Part.TRAIN:
            encoded.append(encode_png(pixels) if data is None else data)
    tensors = _tensors(task, images, encoded)
    shard = write_shard(task.store, task.keys, task.part.value, len(images), tensors)
    return BuiltShard(shard, tuple(sums.tolist()), tuple(square_sums.tolist()))


def _tensors(
    task: ShardTask, images: NDArray[np.uint8], encoded: Sequence[bytes]
) -> dict[str, NDArray[np.generic]]:
    paths = json.dumps([row.path for row in task.chunk.rows], ensure_ascii=False).encode()
    tensors: dict[str, NDArray[np.generic]] = {
        "images": images,
        "labels": np.asarray(task.labels, dtype=np.int64),
        "digests": np.frombuffer(bytes.fromhex("".join(task.digests)), np.uint8).reshape(-1, 32),
        "paths": np.frombuffer(paths, np.uint8),
    }
    if encoded:
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        tensors |= {"encoded": np.frombuffer(b"".join(encoded), np.uint8), "encoded_ends": ends}
    return tensors
