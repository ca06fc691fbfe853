"""Canonical JSON of long lists, made few items at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice

_AT_ONCE = 1000  # items of a list
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def hash_list(values: Iterable[object]) -> str:
    """Return the SHA-256 of a list's canonical JSON, hexadecimal.

    Args:
        values: of the list; an iterator among them stands for a list, and is never one in memory.
    """
    found = hashlib.sha256()
    for number, value in enumerate(values):
        found.update(b"," if number else b"[")
        if isinstance(value, Iterator):
            for piece in json_list(value, _ENCODER):
                found.update(piece)
        else:
            found.update(_ENCODER.encode(value).encode())
    found.update(b"]")
    return found.hexdigest()


def json_list(values: Iterable[object], encoder: json.JSONEncoder) -> Iterator[bytes]:
    """Yield the JSON of a list in pieces."""
    separator, rest = encoder.item_separator.encode(), iter(values)
    before = b"["
    while some := list(islice(rest, _AT_ONCE)):
        yield before + encoder.encode(some)[1:-1].encode()
        before = separator
    yield b"[]" if before == b"[" else b"]"
