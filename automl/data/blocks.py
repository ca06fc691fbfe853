"""Blocks: stored files of rows that several snapshots share. `docs/formats/snapshot.md` says how.

A block never changes, and its key tells its content. A snapshot names the blocks it has rows in,
and which of their rows are its own: a dataset that grows by a hundredth stores a hundredth more.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from automl.data.files import FileStore, SnapshotStore, SourceStore
from automl.errors import DamagedDataError

DAMAGED_HINT = "start the next run, which prepares it again"

Tensors = Mapping[str, NDArray[np.generic]]

_HEAD_BYTES = 4096  # of a file, which mostly have all of its header
_LENGTH_BYTES = 8


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


def read_rows(
    store: SourceStore, block: Block, name: str, rows: Sequence[int]
) -> NDArray[np.uint8]:
    """Return a few rows of a tensor of bytes, without reading the others [m, ...].

    They are not checked, since only whole files have a checksum: this is for people to look at.

    Args:
        store: has the block.
        block: has the rows.
        name: of the tensor, uint8 `[n, ...]`.
        rows: their places in it, each below n.

    Raises:
        NotFoundError: the block is gone.
        DamagedDataError: it has no such rows.
    """
    try:
        begin, shape = _place(store, block, name)
        size = math.prod(shape)
        found = b"".join(store.get_range(block.key, begin + row * size, size) for row in rows)
        return np.frombuffer(found, np.uint8).reshape(len(rows), *shape)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedDataError(f"{block.key} has no rows {name}: {error}.", DAMAGED_HINT) from error


def _place(store: SourceStore, block: Block, name: str) -> tuple[int, list[int]]:
    """Return where a tensor of bytes begins in the file, and the shape of a row of it.

    A file of safetensors begins with the length of its header (8 bytes, little-endian) and the
    header, a JSON object.

    Raises:
        ValueError, KeyError, TypeError: there is no such tensor.
    """
    head = store.get_range(block.key, 0, _HEAD_BYTES)
    end = _LENGTH_BYTES + int.from_bytes(head[:_LENGTH_BYTES], "little")
    if end > block.size_bytes:
        raise ValueError(f"its header would end at {end:,} of {block.size_bytes:,} bytes")
    if end > len(head):
        head = store.get_range(block.key, 0, end)
    told = json.loads(head[_LENGTH_BYTES:end])[name]
    if told["dtype"] != "U8":
        raise ValueError(f"they are {told['dtype']}, not U8")
    return end + int(told["data_offsets"][0]), [int(length) for length in told["shape"][1:]]


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
