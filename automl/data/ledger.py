"""Ledgers: what was found in files, so that no file is read twice that has not changed.

A file is known by its *state* (key, size, etag), which a listing tells, and by its *content* (a
digest of its bytes), which reading tells: so one that was touched, moved or copied is read, but not
decoded again. A ledger consists of *pages*, one for each task of a preparation. A page is written
after the block that it describes, so what a killed run has finished is known to the next one.
`docs/formats/snapshot.md` describes how they are stored.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from automl.data.blocks import Block
from automl.data.digest_index import DIGEST_BYTES, DigestIndex, Digests, digests
from automl.data.files import FileStore, SnapshotStore
from automl.errors import DamagedDataError

SCHEMA = 1
_CANDIDATES = 64  # contents of its size that a file may turn out to have

_K = TypeVar("_K")

log = logging.getLogger(__name__)


def content_of(data: bytes) -> bytes:
    """Return the digest of a file's bytes."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def place_of(key: str) -> bytes:
    """Return the digest of a file's key."""
    return blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()


def state_of(key: str, size_bytes: int, etag: str) -> bytes:
    """Return the digest of what a listing tells of a file."""
    told = json.dumps([key, size_bytes, etag]).encode()
    return blake2b(told, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Files as one task found them, one row each.

    Attributes:
        states: uint8 `[n, 16]`, what the listing told.
        places: uint8 `[n, 8]`, digests of their keys.
        sizes: int64 `[n]`, bytes.
        contents: uint8 `[n, 16]`, digests of their bytes.
    """

    states: Digests
    places: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    contents: Digests

    @classmethod
    def of(cls, rows: Sequence[tuple[bytes, bytes, int, bytes]]) -> Seen:
        """Return files from (state, place, size, content) of each."""
        return cls(
            digests(row[0] for row in rows),
            digests((row[1] for row in rows), 8),
            np.asarray([row[2] for row in rows], np.int64),
            digests(row[3] for row in rows),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Findings of one task.

    Attributes:
        seen: the files it has read.
        contents: uint8 `[k, 16]`: those of them that were new, in the order of `rows` and `facts`.
        rows: int32 `[k]`: their rows in the block; -1 for what cannot be used.
        facts: what the track found in them, by name, `[k, ...]`.
        problems: why contents cannot be used, by index in `contents`.
        block: holds the rows; None if there are none.
        previews: holds what is looked up of some rows alone, such as thumbnails, in the same order.
    """

    seen: Seen
    contents: Digests
    rows: NDArray[np.int32]
    facts: Mapping[str, NDArray[np.generic]]
    problems: Mapping[int, str] = field(default_factory=dict)
    block: Block | None = None
    previews: Block | None = None

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that it tells of."""
        return tuple(each for each in (self.block, self.previews) if each is not None)

    def to_bytes(self) -> bytes:
        """Return the page as stored; equal pages are equal bytes."""
        tensors = {
            "states": self.seen.states,
            "places": self.seen.places,
            "sizes": self.seen.sizes,
            "seen": self.seen.contents,
            "contents": self.contents,
            "rows": self.rows,
        }
        tensors |= {f"fact.{name}": values for name, values in self.facts.items()}
        told = {
            "schema": SCHEMA,
            "block": _told(self.block),
            "problems": dict(self.problems),
        }
        if self.previews is not None:
            told["previews"] = _told(self.previews)
        metadata = {"page": json.dumps(told, sort_keys=True)}  # one key: their order is not stable
        return save({name: np.ascontiguousarray(each) for name, each in tensors.items()}, metadata)

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> Page:
        """Return the page stored under `key`.

        Raises:
            DamagedDataError: it is none.
        """
        try:
            told = json.loads(_metadata(data)["page"])
            tensors = load(data)
            return cls(
                Seen(tensors["states"], tensors["places"], tensors["sizes"], tensors["seen"]),
                tensors["contents"],
                tensors["rows"],
                {n.removeprefix("fact."): v for n, v in tensors.items() if n.startswith("fact.")},
                {int(index): reason for index, reason in told["problems"].items()},
                _block(told["block"]),
                _block(told.get("previews")),
            )
        except (SafetensorError, ValidationError, ValueError, KeyError, TypeError) as error:
            raise DamagedDataError(
                f"{key} is no page of a ledger: {error}.", "delete it"
            ) from error


def _told(block: Block | None) -> dict[str, Any] | None:
    return None if block is None else block.model_dump(by_alias=True)


def _block(told: dict[str, Any] | None) -> Block | None:
    return None if told is None else Block.model_validate(told)


def _metadata(data: bytes) -> dict[str, str]:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    found: dict[str, str] = header["__metadata__"]
    return found


def write_page(store: SnapshotStore, prefix: str, page: Page) -> bytes:
    """Store a page below a prefix, and return what is stored."""
    content = page.to_bytes()
    store.put(_key(prefix, content), content)
    return content


def _key(prefix: str, content: bytes) -> str:
    return f"{prefix}page-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"


class Ledger:
    """Knowledge about files, from all pages.

    Args:
        pages: by key; their order is that of the keys, whoever wrote them when.

    Attributes:
        blocks: hold the rows of the contents.
        previews: hold what is looked up of some of these rows, for each block; None for nothing.
    """

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._by_key = dict(sorted(pages.items()))
        self._pages = tuple(self._by_key.values())
        with_rows = [page for page in self._pages if page.block is not None]
        self.blocks = tuple(page.block for page in with_rows if page.block is not None)
        self.previews = tuple(page.previews for page in with_rows)

    @classmethod
    def read(cls, store: FileStore, prefix: str) -> Ledger:
        """Return the ledger below a prefix, without the pages whose block is not there.

        Args:
            store: where snapshots are.
            prefix: beginning of the keys of pages and blocks.
        """
        stored = {entry.key: entry.size_bytes for entry in store.list(prefix)}
        pages = {}
        for key in [key for key in stored if key.startswith(f"{prefix}page-")]:
            try:
                page = Page.from_bytes(store.get(key).data, key)
            except DamagedDataError as error:
                log.warning("what it tells is looked up again: %s", error.message)
                continue
            lost = [each.key for each in page.blocks if stored.get(each.key) != each.size_bytes]
            if lost:
                log.warning("%s is gone or damaged, its rows are read again", lost[0])
            else:
                pages[key] = page
        return cls(pages)

    def with_pages(self, prefix: str, pages: Iterable[bytes]) -> Ledger:
        """Return the ledger with further pages, as stored below the same prefix."""
        found = {key: Page.from_bytes(data, key) for data in pages for key in [_key(prefix, data)]}
        return Ledger(self._by_key | found)

    @cached_property
    def contents(self) -> Digests:
        """Contents that are known, uint8 `[n, 16]`; one may be there twice."""
        return _joined([page.contents for page in self._pages], (0, DIGEST_BYTES), np.uint8)

    @cached_property
    def rows(self) -> NDArray[np.int32]:
        """Rows of the contents in their blocks, int32 `[n]`; -1 for what cannot be used."""
        return _joined([page.rows for page in self._pages], (0,), np.int32)

    @cached_property
    def block_numbers(self) -> NDArray[np.int32]:
        """Numbers of the contents' blocks in `blocks`, int32 `[n]`; -1 for none."""
        numbers, parts = -1, [np.zeros(0, np.int32)]
        for page in self._pages:
            numbers += page.block is not None
            number = -1 if page.block is None else numbers
            parts.append(np.full(len(page.contents), number, np.int32))
        return np.concatenate(parts)

    def fact(self, name: str) -> NDArray[Any]:
        """Return what the track found in the contents, `[n, ...]`.

        Raises:
            KeyError: there are no pages, or none of them has it.
        """
        return np.concatenate([page.facts[name] for page in self._pages])

    @cached_property
    def problems(self) -> dict[int, str]:
        """Reasons why contents cannot be used, by index in `contents`."""
        found: dict[int, str] = {}
        start = 0
        for page in self._pages:
            found |= {start + index: reason for index, reason in page.problems.items()}
            start += len(page.contents)
        return found

    def find(self, states: Digests) -> NDArray[np.int64]:
        """Return the indices in `contents` of files in these states, int64 `[m]`; -1: unknown."""
        at = self._states.find(states)
        found = np.full(len(states), -1)
        found[at >= 0] = self._content_of_seen[at[at >= 0]]
        return found

    def locate(self, contents: Digests) -> NDArray[np.int64]:
        """Return the indices of contents, int64 `[m]`; -1 for those that are unknown."""
        return self._contents.find(contents)

    def candidates(self, place: bytes, size_bytes: int) -> tuple[bytes, ...]:
        """Return the contents that a file in an unknown state may turn out to have.

        They are what was there before, and a few contents of the same size: it may be a copy.
        """
        found = self._by_place.get(place, ())
        same_size = self._by_size.get(size_bytes, ())
        return (*found, *same_size) if len(same_size) <= _CANDIDATES else found

    @cached_property
    def _states(self) -> DigestIndex:
        return DigestIndex(
            _joined([p.seen.states for p in self._pages], (0, DIGEST_BYTES), np.uint8)
        )

    @cached_property
    def _contents(self) -> DigestIndex:
        return DigestIndex(self.contents)

    @cached_property
    def _seen_contents(self) -> Digests:
        return _joined([p.seen.contents for p in self._pages], (0, DIGEST_BYTES), np.uint8)

    @cached_property
    def _content_of_seen(self) -> NDArray[np.int64]:
        return self._contents.find(self._seen_contents)

    @cached_property
    def _by_place(self) -> dict[bytes, tuple[bytes, ...]]:
        places = _joined([p.seen.places for p in self._pages], (0, 8), np.uint8)
        return _grouped(map(bytes, places), self._known_contents)

    @cached_property
    def _by_size(self) -> dict[int, tuple[bytes, ...]]:
        sizes = _joined([p.seen.sizes for p in self._pages], (0,), np.int64)
        return _grouped(sizes.tolist(), self._known_contents)

    @property
    def _known_contents(self) -> list[bytes | None]:
        """Contents of the files seen; None for one whose block is gone."""
        known = (self._content_of_seen >= 0).tolist()
        return [
            content.tobytes() if is_known else None
            for content, is_known in zip(self._seen_contents, known, strict=True)
        ]


def _joined(parts: Sequence[NDArray[Any]], shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(shape, kind), *parts])


def _grouped(keys: Iterable[_K], contents: Sequence[bytes | None]) -> dict[_K, tuple[bytes, ...]]:
    groups: dict[_K, dict[bytes, None]] = {}
    for key, content in zip(keys, contents, strict=True):
        if content is not None:
            groups.setdefault(key, {})[content] = None
    return {key: tuple(group) for key, group in groups.items()}
