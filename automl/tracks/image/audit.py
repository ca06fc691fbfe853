"""Snapshots of images as an audit sees them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.data.files import FileStore
from automl.data.issues import UNKNOWN, AuditedRows
from automl.data.ledger import Ledger
from automl.data.near_duplicates import find_near_duplicates, straddlers
from automl.data.splits import PARTS, Part
from automl.tracks.image.hashing import THUMBNAIL_SIDE, difference_hashes, thumbnails
from automl.tracks.image.index import read_index
from automl.tracks.image.snapshot import ImageEnvelope
from automl.tracks.image.statistics import STATISTICS
from automl.tracks.image.stored_rows import stored_rows


def audited_rows(
    store: FileStore, dataset: str, snapshot: str, sealed: Collection[str]
) -> AuditedRows:
    """Return the rows of a snapshot.

    Args:
        store: holds it.
        dataset: whose snapshot it is.
        snapshot: its id.
        sealed: parts whose labels are left out.

    Raises:
        NotFoundError, DamagedDataError, NewerSchemaError: it cannot be read.
    """
    envelope = ImageEnvelope.read(store, dataset, snapshot)
    rows, n = stored_rows(store, envelope), sum(envelope.counts[part] for part in PARTS)
    labels, hashes = np.full(n, UNKNOWN), np.zeros(n, np.uint64)
    small = np.zeros((n, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8)
    for piece in rows.pieces(PARTS):
        labels[piece.places] = piece.labels
        hashes[piece.places] = difference_hashes(piece.images)
        small[piece.places] = thumbnails(piece.images)
    parts = np.repeat([part.value for part in PARTS], [envelope.counts[part] for part in PARTS])
    labels[np.isin(parts, list(sealed))] = UNKNOWN
    near = find_near_duplicates(hashes, small)
    return AuditedRows(
        classes=envelope.classes,
        paths=[path for part in PARTS for path in rows.paths(part)],
        parts=parts,
        labels=labels,
        digests=[row.tobytes().hex() for part in PARTS for row in rows.digests(part)],
        near=near,
        straddlers=straddlers(near, parts == Part.TRAIN.value, small),
        statistics=_statistics(store, envelope),
    )


def _statistics(store: FileStore, envelope: ImageEnvelope) -> Mapping[str, NDArray[np.float64]]:
    """Return what was measured of each row when it was read; NaN where the ledger lacks it.

    Nothing is known of snapshots of earlier releases, which have no ledger.
    """
    if envelope.index is None:
        return {}
    index = read_index(store, envelope, PARTS)
    found = np.full((len(index.paths), len(STATISTICS)), np.nan)
    for prefix in sorted({f"{block.key.rpartition('/')[0]}/" for block in envelope.blocks}):
        ledger = Ledger.read(store, prefix)
        if not ledger.blocks:
            continue
        numbers = {block.key: number for number, block in enumerate(ledger.blocks)}
        of_block = np.array([numbers.get(block.key, -1) for block in envelope.blocks])
        wanted = _places(of_block[index.images[:, 0]], index.images[:, 1])
        known = _places(ledger.block_numbers, ledger.rows)
        known[ledger.rows < 0] = -1
        by_place = np.argsort(known, kind="stable")
        at = by_place[np.minimum(np.searchsorted(known[by_place], wanted), len(known) - 1)]
        is_known = (wanted >= 0) & (known[at] == wanted)
        found[is_known] = ledger.fact("statistics")[at[is_known]]
    return dict(zip(STATISTICS, found.T, strict=True))


def _places(blocks: NDArray[np.integer[Any]], rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return one number for each block and row in it; negative ones for no block."""
    places: NDArray[np.int64] = blocks.astype(np.int64) * 2**32 + rows
    return places
