"""Sources that have been prepared already, by a fingerprint of what they listed."""

from __future__ import annotations

import json
import logging
from typing import TypeVar

from automl.data.blocks import read_checked
from automl.data.files import FileStore, SnapshotStore
from automl.data.snapshot import Envelope
from automl.domain.layout import DatasetKeys
from automl.errors import DamagedDataError, NotFoundError

AnyEnvelope = TypeVar("AnyEnvelope", bound=Envelope)

SCHEMA = 1

log = logging.getLogger(__name__)


def find_prepared(
    store: FileStore, dataset: str, fingerprint: str, kind: type[AnyEnvelope]
) -> AnyEnvelope | None:
    """Return the envelope of the snapshot that a source was prepared as; None if there is none.

    Args:
        store: of the snapshots.
        dataset: whose snapshot it is.
        fingerprint: of the source's listing and everything else that the snapshot depends on.
        kind: what the track's envelopes are.
    """
    key = DatasetKeys(dataset).source(fingerprint)
    try:
        snapshot = json.loads(store.get(key).data)["snapshot"]
    except NotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        log.warning("%s names no snapshot; the source is prepared again", key)
        return None
    return find_snapshot(store, dataset, snapshot, kind)


def find_snapshot(
    store: FileStore, dataset: str, snapshot: str, kind: type[AnyEnvelope]
) -> AnyEnvelope | None:
    """Return the envelope of a snapshot whose files are there in their sizes; else None.

    None means that it is to be built: it never was, was deleted, or is damaged.
    """
    try:
        envelope = kind.read(store, dataset, snapshot)
    except NotFoundError:
        return None
    except DamagedDataError as error:
        log.warning("snapshot %s of %s is built again: %s", snapshot, dataset, error.message)
        return None
    sizes = envelope.sizes
    folders = {key.rpartition("/")[0] for key in sizes}
    stored = {e.key: e.size_bytes for folder in folders for e in store.list(f"{folder}/")}
    bad = [k for k, size in sizes.items() if k not in stored or size not in {None, stored[k]}]
    if bad:
        told = (snapshot, dataset, len(bad), len(sizes), bad[0])
        log.warning("snapshot %s of %s lacks %d of its %d files, such as %s: built again", *told)
        return None
    return envelope.model_copy(update={"reused": True})


def remove_damaged(store: SnapshotStore, dataset: str, snapshot: str, kind: type[Envelope]) -> None:
    """Remove the files of a snapshot that are not what was written; all of them are read.

    What is removed is built again, as what was deleted is, also for snapshots that share it.

    Args:
        store: of the snapshots.
        dataset: whose snapshot it is.
        snapshot: its id; one that is gone, or whose envelope is damaged, has nothing to check.
        kind: what the track's envelopes are.
    """
    try:
        envelope = kind.read(store, dataset, snapshot)
    except (NotFoundError, DamagedDataError):
        return
    for key, sha256 in envelope.checksums.items():
        try:
            read_checked(store, key, sha256)
        except NotFoundError:
            continue
        except DamagedDataError as error:
            log.warning("%s It is built again.", error.message)
            store.delete(key)


def note_prepared(store: SnapshotStore, envelope: Envelope, fingerprint: str) -> None:
    """Store what a source with a fingerprint was prepared as."""
    content = json.dumps({"schema": SCHEMA, "snapshot": envelope.id}) + "\n"
    store.put(DatasetKeys(envelope.dataset).source(fingerprint), content.encode())
