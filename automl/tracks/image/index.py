"""Indices of snapshots: what each row is, and in which blocks it lies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.data.blocks import Block, read_block, write_block
from automl.data.canonical import json_list
from automl.data.files import FileStore, SnapshotStore
from automl.data.ledger import Ledger
from automl.data.snapshot import Envelope
from automl.data.splits import PARTS, Part
from automl.data.texts import Texts
from automl.domain.layout import SnapshotKeys
from automl.tracks.image.listings import Listings
from automl.tracks.image.plan import Plan

SEALED = (Part.REPORT, Part.GATE)
OPEN = tuple(part for part in PARTS if part not in SEALED)
_TRAIN = PARTS.index(Part.TRAIN)


@dataclass(frozen=True, slots=True, eq=False)
class RowIndex:
    """Rows of a snapshot, sorted by part, digest, label and path.

    Attributes:
        parts: uint8 `[n]`, places in `PARTS`.
        labels: int64 `[n]`, indices of classes.
        digests: uint8 `[n, 32]`, of the decoded pixels.
        images: int32 `[n, 2]`, number of the block and row in it.
        files: int32 `[n, 2]`, the same of the file as the source has it; -1 for training rows.
        paths: how the source calls the rows.
    """

    parts: NDArray[np.uint8]
    labels: NDArray[np.int64]
    digests: NDArray[np.uint8]
    images: NDArray[np.int32]
    files: NDArray[np.int32]
    paths: Texts

    def of(self, parts: Sequence[Part]) -> RowIndex:
        """Return the rows of some parts, in the order of the parts."""
        places = [np.flatnonzero(self.parts == PARTS.index(part)) for part in parts]
        rows = np.concatenate([np.zeros(0, np.int64), *places])
        return RowIndex(
            self.parts[rows],
            self.labels[rows],
            self.digests[rows],
            self.images[rows],
            self.files[rows],
            self.paths.take(rows),
        )

    def and_also(self, other: RowIndex) -> RowIndex:
        """Return these rows and those of another index of the same snapshot."""
        return RowIndex(
            np.concatenate([self.parts, other.parts]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.digests, other.digests]),
            np.concatenate([self.images, other.images]),
            np.concatenate([self.files, other.files]),
            Texts.of(chain(self.paths, other.paths)),
        )

    def stored(self, store: SnapshotStore, keys: SnapshotKeys) -> Block:
        """Store the index with its snapshot."""
        paths = bytearray().join(json_list(self.paths, json.JSONEncoder(ensure_ascii=False)))
        tensors: dict[str, NDArray[np.generic]] = {
            "parts": self.parts,
            "labels": self.labels,
            "digests": self.digests,
            "images": self.images,
            "files": self.files,
            "paths": np.frombuffer(paths, np.uint8),
        }
        return write_block(store, keys.file("rows"), len(self.parts), tensors)

    @classmethod
    def read(cls, store: FileStore, block: Block) -> RowIndex:
        """Return a stored index.

        Raises:
            DamagedDataError: it is not what was written.
        """
        found: Mapping[str, NDArray[Any]] = read_block(store, block)
        return cls(
            found["parts"],
            found["labels"],
            found["digests"],
            found["images"],
            found["files"],
            Texts.of(json.loads(found["paths"].tobytes())),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """An index, and the blocks that it counts.

    Attributes:
        index: where the rows are.
        blocks: have their images.
        files: have the files of held-out rows.
    """

    index: RowIndex
    blocks: tuple[Block, ...]
    files: tuple[Block, ...]

    def stored(self, store: SnapshotStore, keys: SnapshotKeys) -> dict[str, object]:
        """Store the index, that of the sealed rows apart, and return what an envelope tells."""
        return {
            "blocks": self.blocks,
            "files": self.files,
            "index": self.index.of(OPEN).stored(store, keys),
            "sealed": self.index.of(SEALED).stored(store, keys),
        }


def read_index(store: FileStore, envelope: Envelope, parts: Sequence[Part]) -> RowIndex:
    """Return the rows of some parts, in the order of the parts.

    The index of sealed rows is read only where some of them are asked for.

    Raises:
        DamagedDataError: an index is not what was written.
    """
    assert envelope.index is not None
    index = RowIndex.read(store, envelope.index)
    if envelope.sealed is not None and set(parts) & set(SEALED):
        index = index.and_also(RowIndex.read(store, envelope.sealed))
    return index.of(parts)


def locate(listing: Listings, plan: Plan, ledger: Ledger, files: Ledger) -> Located:
    """Return where the rows of a plan are.

    Args:
        listing: has the rows.
        plan: which of them the snapshot has.
        ledger: where their images are.
        files: where the files of those are that are held out.
    """
    order = np.argsort(plan.parts, kind="stable")
    parts, contents = plan.parts[order], plan.contents[order]
    images, blocks = _places(ledger, contents)
    held_out = np.flatnonzero(parts != _TRAIN)
    kept = np.full((len(parts), 2), -1, np.int32)
    at = files.locate(ledger.contents[contents[held_out]])
    kept[held_out], file_blocks = _places(files, at)
    labels = plan.labels.codes[order].astype(np.int64)
    paths = listing.paths(plan.rows[order])
    index = RowIndex(parts, labels, plan.digests[order], images, kept, paths)
    return Located(index, blocks, file_blocks)


def _places(
    ledger: Ledger, contents: NDArray[np.int64]
) -> tuple[NDArray[np.int32], tuple[Block, ...]]:
    """Return the blocks and rows of contents, int32 `[n, 2]`, and the blocks that are counted."""
    used, numbers = np.unique(ledger.block_numbers[contents], return_inverse=True)
    places = np.stack([numbers.astype(np.int32), ledger.rows[contents]], axis=1)
    return places, tuple(ledger.blocks[number] for number in used.tolist())
