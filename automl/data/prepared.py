"""Sources that have been prepared already, by a fingerprint of what they listed."""

from __future__ import annotations

import json
from typing import TypeVar

from automl.data.files import FileStore, SnapshotStore
from automl.data.snapshot import Envelope
from automl.domain.layout import DatasetKeys
from automl.errors import DamagedDataError, NotFoundError

AnyEnvelope = TypeVar("AnyEnvelope", bound=Envelope)

SCHEMA = 1


def find_prepared(
    store: FileStore, dataset: str, fingerprint: str, kind: type[AnyEnvelope]
) -> AnyEnvelope | None:
    """Return the envelope of the snapshot that a source was prepared as; None if there is none.

    Args:
        store: of the snapshots.
        dataset: whose snapshot it is.
        fingerprint: of the source's listing and everything else that the snapshot depends on.
        kind: what the track's envelopes are.

    Raises:
        DamagedDataError: what is stored cannot be read.
    """
    key = DatasetKeys(dataset).source(fingerprint)
    try:
        content = store.get(key).data
    except NotFoundError:
        return None
    try:
        snapshot = json.loads(content)["snapshot"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedDataError(f"{key} names no snapshot.", "delete it") from error
    return find_snapshot(store, dataset, snapshot, kind)


def find_snapshot(
    store: FileStore, dataset: str, snapshot: str, kind: type[AnyEnvelope]
) -> AnyEnvelope | None:
    """Return the envelope of a snapshot; None if it was never built, or deleted by retention."""
    try:
        envelope = kind.read(store, dataset, snapshot)
    except NotFoundError:
        return None
    return envelope.model_copy(update={"reused": True})


def note_prepared(store: SnapshotStore, envelope: Envelope, fingerprint: str) -> None:
    """Store what a source with a fingerprint was prepared as."""
    content = json.dumps({"schema": SCHEMA, "snapshot": envelope.id}) + "\n"
    store.put(DatasetKeys(envelope.dataset).source(fingerprint), content.encode())
