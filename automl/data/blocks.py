"""Blocks: stored files of rows that several snapshots share. `docs/formats/snapshot.md` says how.

A block never changes, and its key tells its content. A snapshot names the blocks it has rows in,
and which of their rows are its own: a dataset that grows by a hundredth stores a hundredth more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from automl.data.files import FileStore, SnapshotStore
from automl.errors import DamagedDataError

DAMAGED_HINT = "start the next run, which prepares it again"

Tensors = Mapping[str, NDArray[np.generic]]


class Block(BaseModel):
    """One stored file of rows.

    Attributes:
        key: where it is.
        rows: how many it has.
        sha256: of its content.
        size_bytes: of its content; `bytes` in the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    key: str
    rows: int
    sha256: str
    size_bytes: int = Field(alias="bytes")


def write_block(store: SnapshotStore, prefix: str, rows: int, tensors: Tensors) -> Block:
    """Store rows and return their block; equal content has an equal key.

    Args:
        store: where snapshots are.
        prefix: beginning of the key.
        rows: their number.
        tensors: what is stored of them, by name.
    """
    content = save(dict(tensors))
    sha256 = hashlib.sha256(content).hexdigest()
    key = f"{prefix}-{sha256[:16]}.safetensors"
    store.put(key, content)
    return Block(key=key, rows=rows, sha256=sha256, size_bytes=len(content))


def read_block(store: FileStore, block: Block) -> Tensors:
    """Return the tensors of a block.

    Raises:
        NotFoundError: it is gone.
        DamagedDataError: it is not what was written.
    """
    try:
        return load(read_checked(store, block.key, block.sha256))
    except SafetensorError as error:
        raise DamagedDataError(f"{block.key}: {error}.", DAMAGED_HINT) from error


def read_checked(store: FileStore, key: str, sha256: str) -> bytes:
    """Return the content of a key whose SHA-256 is known.

    Raises:
        DamagedDataError: it is not what was written.
    """
    content = store.get(key).data
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise DamagedDataError(
            f"{key} has SHA-256 {actual}, its snapshot says {sha256}.", DAMAGED_HINT
        )
    return content
