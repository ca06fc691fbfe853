"""Indices of snapshots: what each row is, and in which blocks it lies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.data.blocks import Block, read_block, write_block
from automl.data.files import FileStore, SnapshotStore
from automl.data.ledger import Ledger
from automl.data.splits import PARTS, Part
from automl.domain.layout import SnapshotKeys
from automl.tracks.image.listings import Listings
from automl.tracks.image.plan import Plan

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
    paths: Sequence[str]

    def of_parts(self, parts: Sequence[Part]) -> NDArray[np.int64]:
        """Return the places of the rows of some parts, in the order of the parts."""
        places = [np.flatnonzero(self.parts == PARTS.index(part)) for part in parts]
        return np.concatenate([np.zeros(0, np.int64), *places])

    def stored(self, store: SnapshotStore, keys: SnapshotKeys) -> Block:
        """Store the index with its snapshot."""
        paths = json.dumps(list(self.paths), ensure_ascii=False).encode()
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
            json.loads(found["paths"].tobytes()),
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


def locate(listing: Listings, plan: Plan, ledger: Ledger, files: Ledger) -> Located:
    """Return where the rows of a plan are.

    Args:
        listing: has the rows.
        plan: which of them the snapshot has.
        ledger: where their images are.
        files: where the files of those are that are held out.
    """
    number = {part: place for place, part in enumerate(PARTS)}
    parts = np.asarray([number[part] for part in plan.parts], np.uint8)
    order = np.argsort(parts, kind="stable")
    parts, contents = parts[order], np.asarray(plan.contents)[order]
    index_of = {label: index for index, label in enumerate(plan.classes)}
    images, blocks = _places(ledger, contents)
    held_out = np.flatnonzero(parts != _TRAIN)
    kept = np.full((len(parts), 2), -1, np.int32)
    at = files.locate(ledger.contents[contents[held_out]])
    kept[held_out], file_blocks = _places(files, at)
    digest = ledger.fact("digest")[contents]
    labels = np.asarray([index_of[plan.labels[row]] for row in order], np.int64)
    paths = [listing.rows[plan.rows[row]].path for row in order]
    return Located(RowIndex(parts, labels, digest, images, kept, paths), blocks, file_blocks)


def _places(
    ledger: Ledger, contents: NDArray[np.int64]
) -> tuple[NDArray[np.int32], tuple[Block, ...]]:
    """Return the blocks and rows of contents, int32 `[n, 2]`, and the blocks that are counted."""
    used, numbers = np.unique(ledger.block_numbers[contents], return_inverse=True)
    places = np.stack([numbers.astype(np.int32), ledger.rows[contents]], axis=1)
    return places, tuple(ledger.blocks[number] for number in used.tolist())
