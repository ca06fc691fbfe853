"""Tasks of Dask workers: read each image once, and keep the files of held-out rows.

Everything here is a module-level function of picklable values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from automl.data.blocks import write_block
from automl.data.digest_index import digests
from automl.data.files import FileStore, SnapshotStore
from automl.data.ledger import Page, Seen, content_of, write_page
from automl.errors import DataError, NotFoundError, StorageAccessError
from automl.tracks.image.decode import decode_image, encode_png, pixel_digest
from automl.tracks.image.hashing import THUMBNAIL_SIDE, difference_hashes, thumbnails
from automl.tracks.image.recipe import Recipe
from automl.tracks.image.resize import ImagePreprocessor
from automl.tracks.image.source_rows import SourceRow, SourceRows
from automl.tracks.image.sources import Listing
from automl.tracks.image.statistics import STATISTICS, row_statistics

_PIXEL_BYTES = 4  # of a file without compression: eight bits of four channels
_OTHER_BYTES = 16 * 2**20  # of its metadata
_READERS = 8  # files of a remote store that are asked for at once
_AHEAD_BYTES = 64 * 2**20  # that they may take together, beyond one file

Unread: TypeAlias = DataError | StorageAccessError  # why a file could not be read


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Rows to read on a worker.

    Attributes:
        store: holds the rows' files.
        rows: as the source names them.
        pixels: uint8 `[n, H, W, C]` of these rows, or None if they are files.
    """

    store: FileStore
    rows: tuple[SourceRow, ...]
    pixels: NDArray[np.uint8] | None

    @classmethod
    def of(cls, listing: Listing, indices: Sequence[int]) -> RowChunk:
        """Return the rows at `indices`."""
        pixels = None if listing.pixels is None else listing.pixels[np.asarray(indices, dtype=int)]
        return cls(listing.store, tuple(listing.rows[index] for index in indices), pixels)

    def read(self) -> Iterator[RawImage | Unread]:
        """Yield what is in each row's file, in order, or why it cannot be read."""
        if self.pixels is not None:
            for image in self.pixels:
                grey = image.shape[2] == 1
                rgb = np.ascontiguousarray(np.repeat(image, 3, axis=2) if grey else image)
                yield RawImage(bytes.fromhex(pixel_digest(rgb))[:16], None, rgb)
            return
        for data in fetched(self.store, self.rows):
            yield RawImage(content_of(data), data, None) if isinstance(data, bytes) else data


@dataclass(frozen=True, slots=True)
class RawImage:
    """An image as its source has it.

    Attributes:
        content: digest of the file's bytes, or of the pixels of an array's row.
        data: the file; None for an array's row.
        pixels: uint8 `[H, W, 3]` of an array's row; None for a file.
    """

    content: bytes
    data: bytes | None
    pixels: NDArray[np.uint8] | None

    def decoded(self, most_pixels: int) -> NDArray[np.uint8]:
        """Return the pixels, uint8 `[H, W, 3]`.

        Raises:
            DataError: there are none; the message is the reason.
        """
        if self.pixels is not None:
            return self.pixels
        assert self.data is not None
        return decode_image(self.data, most_pixels)

    def encoded(self) -> bytes:
        """Return the file, or a PNG file with the same pixels."""
        if self.data is not None:
            return self.data
        assert self.pixels is not None
        return encode_png(self.pixels)


def unreadable(row: SourceRow, most_pixels: int) -> str:
    """Return why a row need not be read at all; "" if it has to be."""
    most_bytes = _most_bytes(most_pixels)
    if row.problem or not row.key or row.size_bytes <= most_bytes:
        return row.problem
    return (
        f"the file has {row.size_bytes:,} bytes, more than the {most_bytes:,} that an "
        "image of data.max_pixels takes"
    )


def unreadable_rows(rows: SourceRows, most_pixels: int) -> dict[int, str]:
    """Return why rows need not be read at all, by their places."""
    large = np.flatnonzero(rows.sizes > _most_bytes(most_pixels)).tolist()
    found = {row: unreadable(rows[row], most_pixels) for row in {*rows.problems, *large}}
    return {row: problem for row, problem in found.items() if problem}


def _most_bytes(most_pixels: int) -> int:
    return _PIXEL_BYTES * most_pixels + _OTHER_BYTES


def fetched(store: FileStore, rows: Iterable[SourceRow]) -> Iterator[bytes | Unread]:
    """Yield the files of rows; those of a remote store are asked for before they are needed."""
    if not store.uri.startswith("s3://"):
        for row in rows:
            yield _get(store, row)
        return
    with ExitStack() as stack:
        pool = ThreadPoolExecutor(_READERS)
        stack.callback(pool.shutdown, cancel_futures=True)
        waiting: list[tuple[Future[bytes | Unread], int]] = []
        ahead = iter(rows)
        following = next(ahead, None)
        while waiting or following is not None:
            while following is not None and _may_ask(waiting, following.size_bytes):
                waiting.append((pool.submit(_get, store, following), following.size_bytes))
                following = next(ahead, None)
            yield waiting.pop(0)[0].result()


def _may_ask(waiting: Sequence[tuple[object, int]], size_bytes: int) -> bool:
    taken = sum(size for _, size in waiting)
    return not waiting or (len(waiting) < 2 * _READERS and taken + size_bytes <= _AHEAD_BYTES)


def _get(store: FileStore, row: SourceRow) -> bytes | Unread:
    try:
        return store.get(row.key).data
    except NotFoundError:
        return DataError("the file vanished while it was read")
    except (DataError, StorageAccessError) as error:
        return error


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Rows whose files are in a state that is not known.

    Attributes:
        chunk: the rows.
        states: what the listing tells of each.
        places: digests of their names.
        candidates: contents that each may turn out to have, which need no decoding.
        recipe: what becomes of an image.
        store: where blocks and pages go.
        prefix: beginning of their keys.
    """

    chunk: RowChunk
    states: tuple[bytes, ...]
    places: tuple[bytes, ...]
    candidates: tuple[tuple[bytes, ...], ...]
    recipe: Recipe
    store: SnapshotStore
    prefix: str


@dataclass(frozen=True, slots=True)
class ReadResult:
    """Findings of a task.

    Attributes:
        page: what it adds to the ledger; it is stored.
        problems: why rows could not be read this time, by index in the chunk.
    """

    page: bytes
    problems: Mapping[int, str]


def read_rows(task: ReadTask) -> ReadResult:
    """Read the task's rows, store the images that were not known, and return what was found.

    Raises:
        StorageAccessError: the store lets nothing be read any more, not only single files.
    """
    found = _Found(ImagePreprocessor(task.recipe.graph), task.recipe.most_pixels)
    seen, problems, denied = [], {}, None
    for index, raw in enumerate(task.chunk.read()):
        if isinstance(raw, RawImage):
            state, place = task.states[index], task.places[index]
            seen.append((state, place, task.chunk.rows[index].size_bytes, raw.content))
            if raw.content not in task.candidates[index]:
                found.add(raw)
        elif isinstance(raw, DataError):
            problems[index] = raw.message
        else:
            denied = raw
            problems[index] = f"the file may not be read: {raw.message}"
    if denied is not None:
        _check_access(task.chunk, problems, denied)
    if not seen:
        return ReadResult(b"", problems)
    page = found.page(Seen.of(seen), task)
    return ReadResult(write_page(task.store, task.prefix, page), problems)


def _check_access(chunk: RowChunk, problems: Mapping[int, str], denied: StorageAccessError) -> None:
    """Raise `denied` unless a file that could be read still can."""
    readable = next((i for i in range(len(chunk.rows)) if i not in problems), None)
    if readable is None:
        raise denied
    chunk.store.get(chunk.rows[readable].key)


@dataclass(slots=True)
class _Found:
    """New contents of one task.

    Attributes:
        preprocess: makes square images.
        most_pixels: that an image may have before.
        contents: what is new, with its row among `images`; -1 for what cannot be used.
        problems: why contents cannot be used, by their place.
        images: uint8 `[S, S, 3]` each.
        thumbnails: of images that are smaller than a thumbnail: made from all of their pixels.
        facts: about each content.
    """

    preprocess: ImagePreprocessor
    most_pixels: int
    contents: dict[bytes, int] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    thumbnails: list[NDArray[np.uint8]] = field(default_factory=list)
    facts: list[_Facts] = field(default_factory=list)

    def add(self, raw: RawImage) -> None:
        """Decode an image and resize it, unless the task has done so already."""
        if raw.content in self.contents:
            return
        try:
            pixels = raw.decoded(self.most_pixels)
        except DataError as error:
            self.problems[len(self.contents)] = error.message
            self.contents[raw.content] = -1
            self.facts.append(_Facts.nothing())
            return
        image = self.preprocess(pixels[np.newaxis])[0]
        self.contents[raw.content] = len(self.images)
        self.images.append(image)
        if len(image) < THUMBNAIL_SIDE:
            self.thumbnails.append(thumbnails(pixels[np.newaxis])[0])
        self.facts.append(_Facts.of(pixels, image))

    def page(self, seen: Seen, task: ReadTask) -> Page:
        """Store the images, if there are any, and return what is known now."""
        rows = np.asarray(list(self.contents.values()), np.int32)
        hashes = np.zeros(len(rows), np.uint64)
        block = previews = None
        if self.images:
            images = np.stack(self.images)
            used = [content for content, row in self.contents.items() if row >= 0]
            tensors = {"images": images, "contents": digests(used)}
            block = write_block(task.store, f"{task.prefix}images", len(images), tensors)
            small = np.stack(self.thumbnails) if self.thumbnails else thumbnails(images)
            hashes[rows >= 0] = difference_hashes(small)
            tensors = {"thumbnails": small}
            previews = write_block(task.store, f"{task.prefix}thumbnails", len(small), tensors)
        columns: dict[str, NDArray[np.generic]] = {
            "digest": digests((each.digest for each in self.facts), 32),
            "hash": hashes,
            "statistics": np.asarray([each.statistics for each in self.facts]).reshape(
                -1, len(STATISTICS)
            ),
            "sums": np.asarray([each.sums for each in self.facts], np.int64).reshape(-1, 3),
            "squares": np.asarray([each.squares for each in self.facts], np.int64).reshape(-1, 3),
        }
        contents = digests(self.contents)
        return Page(seen, contents, rows, columns, self.problems, block, previews)


@dataclass(frozen=True, slots=True)
class _Facts:
    """Facts about one image; `sums` and `squares` are of the resized one's values, per channel.

    `statistics` are in the order of `STATISTICS`.
    """

    digest: bytes
    statistics: tuple[float, ...]
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], image: NDArray[np.uint8]) -> _Facts:
        planes = image.reshape(-1, 3).T.astype(np.float64, order="C")  # whose sums are exact
        return cls(
            bytes.fromhex(pixel_digest(pixels)),
            tuple(row_statistics(pixels).values()),
            tuple(int(plane.sum()) for plane in planes),
            tuple(int(plane @ plane) for plane in planes),
        )

    @classmethod
    def nothing(cls) -> _Facts:
        return cls(bytes(32), (0.0,) * len(STATISTICS), (0, 0, 0), (0, 0, 0))


@dataclass(frozen=True, slots=True)
class KeepTask:
    """Held-out rows whose files are to be kept as they are.

    Attributes:
        chunk: the rows.
        contents: what they held when they were read.
        store: where blocks and pages go.
        prefix: beginning of their keys.
    """

    chunk: RowChunk
    contents: tuple[bytes, ...]
    store: SnapshotStore
    prefix: str


def keep_files(task: KeepTask) -> bytes:
    """Store the files of the task's rows, and return the page that tells of them.

    Raises:
        DataError: a row is not what it was when it was read.
    """
    encoded = []
    for index, raw in enumerate(task.chunk.read()):
        if isinstance(raw, StorageAccessError):
            raise raw
        if not isinstance(raw, RawImage) or raw.content != task.contents[index]:
            raise DataError(
                f"{task.chunk.rows[index].path} changed while the dataset was read.",
                "run it again once the dataset is complete",
            )
        encoded.append(raw.encoded())
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    contents = digests(task.contents)
    tensors: dict[str, NDArray[np.generic]] = {
        "encoded": np.frombuffer(b"".join(encoded), np.uint8),
        "encoded_ends": ends,
        "contents": contents,
    }
    block = write_block(task.store, f"{task.prefix}files", len(encoded), tensors)
    rows = np.arange(len(encoded), dtype=np.int32)
    page = Page(Seen.of([]), contents, rows, {}, {}, block)
    return write_page(task.store, task.prefix, page)
