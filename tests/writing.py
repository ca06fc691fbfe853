"""A process that writes objects until it is killed: `python -m tests.writing HOME SOURCE SEED`.

Every content carries its own SHA-256, so that a reader knows whether it is whole.
"""

from __future__ import annotations

import hashlib
import random
import sys
from itertools import count
from pathlib import Path

from automl.errors import NotFoundError, PreconditionFailedError
from automl.storage.file import FileObjectStore

KEYS = ("put", "put_if_match", "upload", "deleted")
_DIGEST_BYTES = 32


def signed(body: bytes) -> bytes:
    return hashlib.sha256(body).digest() + body


def is_whole(content: bytes) -> bool:
    return hashlib.sha256(content[_DIGEST_BYTES:]).digest() == content[:_DIGEST_BYTES]


def write(store: FileObjectStore, source: Path, seed: int) -> None:
    """Write the keys in every way that there is, with contents of all sizes, for ever."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    for number in count():
        content = signed(rng.randbytes(rng.choice([0, 100, 5_000, 300_000])))
        store.put("put", content)
        store.put_if_absent(f"absent/{seed}-{number}", content)
        try:
            store.put_if_match("put_if_match", content, store.get("put_if_match").etag)
        except NotFoundError:
            store.put("put_if_match", content)
        except PreconditionFailedError:
            continue  # another writer was faster
        source.write_bytes(content)
        store.upload(source, "upload")
        store.download("upload", source.with_suffix(".copy"))
        store.put("deleted", content)
        store.delete("deleted")


if __name__ == "__main__":
    write(FileObjectStore(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]))
