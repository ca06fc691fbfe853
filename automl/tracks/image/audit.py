"""Snapshots of images as an audit sees them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl.data.files import FileStore
from automl.data.issues import UNKNOWN, AuditedRows
from automl.data.ledger import Ledger
from automl.data.near_duplicates import NearDuplicates
from automl.data.splits import PARTS
from automl.tracks.image.index import read_index
from automl.tracks.image.look_alikes import near_duplicates
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
    rows = stored_rows(store, envelope).listed(PARTS)
    parts = np.repeat([part.value for part in PARTS], [envelope.counts[part] for part in PARTS])
    labels = np.where(np.isin(parts, list(sealed)), UNKNOWN, rows.labels)
    known = _known(store, envelope)
    return AuditedRows(
        classes=envelope.classes,
        paths=rows.paths,
        parts=parts,
        labels=labels,
        digests=[row.tobytes().hex() for row in rows.digests],
        near=None if known is None else known.near_duplicates(store),
        excluded=envelope.excluded,
        statistics={} if known is None else known.statistics(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """Notes about the rows of a snapshot.

    Attributes:
        ledger: has them.
        contents: indices in it, of the rows [n]; -1 for a row that it lacks.
    """

    ledger: Ledger
    contents: NDArray[np.int64]

    def near_duplicates(self, store: FileStore) -> NearDuplicates:
        """Return the rows that show nearly the same; one that is not known is like none."""
        rows = np.flatnonzero(self.contents >= 0)
        found = near_duplicates(store, self.ledger, self.contents[rows])
        clusters = tuple(tuple(rows[list(cluster)].tolist()) for cluster in found.clusters)
        return replace(found, pairs=rows[found.pairs], clusters=clusters)

    def statistics(self) -> Mapping[str, NDArray[np.float64]]:
        """Return what was measured of each row; NaN for one that is not known."""
        found = np.full((len(self.contents), len(STATISTICS)), np.nan)
        is_known = self.contents >= 0
        found[is_known] = self.ledger.fact("statistics")[self.contents[is_known]]
        return dict(zip(STATISTICS, found.T, strict=True))


def _known(store: FileStore, envelope: ImageEnvelope) -> _Known | None:
    """Return what was noted of the rows when they were read.

    Nothing is known of snapshots of earlier releases, which have no ledger.
    """
    if not envelope.blocks:
        return None
    (prefix,) = {f"{block.key.rpartition('/')[0]}/" for block in envelope.blocks}
    ledger = Ledger.read(store, prefix)
    if not ledger.blocks:
        return None
    index = read_index(store, envelope, PARTS)
    numbers = {block.key: number for number, block in enumerate(ledger.blocks)}
    of_block = np.array([numbers.get(block.key, -1) for block in envelope.blocks])
    wanted = _places(of_block[index.images[:, 0]], index.images[:, 1])
    places = _places(ledger.block_numbers, ledger.rows)
    places[ledger.rows < 0] = -1
    by_place = np.argsort(places, kind="stable")
    at = by_place[np.minimum(np.searchsorted(places[by_place], wanted), len(places) - 1)]
    return _Known(ledger, np.where((wanted >= 0) & (places[at] == wanted), at, -1))


def _places(blocks: NDArray[np.integer[Any]], rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return one number for each block and row in it; negative ones for no block."""
    places: NDArray[np.int64] = blocks.astype(np.int64) * 2**32 + rows
    return places
