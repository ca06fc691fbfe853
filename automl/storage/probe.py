"""Probes of a store: does it keep its promises about conditional writes?"""

from __future__ import annotations

from automl.domain.layout import probe_key
from automl.errors import PreconditionFailedError, StorageAccessError
from automl.storage.objects import ObjectStore


def probe_conditional_writes(store: ObjectStore) -> None:
    """Try conditional writes on a key of its own, which is removed again.

    Some servers that speak S3 silently ignore conditions; search state would be lost there.

    Raises:
        StorageAccessError: the store ignores conditions, or never fulfils them.
    """
    key = probe_key()
    first = _create(store, key)  # an error here is not hidden by one of the removal
    try:
        second = _overwrites(store, key)
        if second or _replaces_stale(store, key, first):
            raise _refusal(store, "ignores the conditions of conditional writes")
        try:
            store.put_if_match(key, b"third", store.get(key).etag)
        except PreconditionFailedError as error:
            if store.get(key).data != b"third":  # else only the reply was lost
                raise _refusal(store, "refuses conditional writes whose condition holds") from error
    finally:
        store.delete(key)


def _create(store: ObjectStore, key: str) -> str:
    try:
        return store.put_if_absent(key, b"first")
    except PreconditionFailedError:  # nobody else knows the key: the reply was lost
        return store.get(key).etag


def _overwrites(store: ObjectStore, key: str) -> bool:
    try:
        store.put_if_absent(key, b"must not be written")
    except PreconditionFailedError:
        return False
    return True


def _replaces_stale(store: ObjectStore, key: str, stale_etag: str) -> bool:
    store.put(key, b"second")
    try:
        store.put_if_match(key, b"must not be written", stale_etag)
    except PreconditionFailedError:
        return store.get(key).data != b"second"
    return True


def _refusal(store: ObjectStore, fault: str) -> StorageAccessError:
    return StorageAccessError(
        f"{store.uri} {fault}, so that concurrent workers would overwrite each other.",
        "keep the study log in a database with AUTOML_STUDY_LOG, or use a folder or a store that "
        "obeys If-None-Match and If-Match, such as AWS S3",
    )
