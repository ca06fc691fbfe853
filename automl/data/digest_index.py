"""Digests in arrays: which rows have equal ones, and where one is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16
_AT_ONCE = 2**16  # digests that are looked for together

Digests = NDArray[np.uint8]  # [n, DIGEST_BYTES], or another multiple of 8


def digest_of(text: str) -> bytes:
    """Return the digest of a text, also of one that is no Unicode."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


def digests(values: Iterable[bytes], size: int = DIGEST_BYTES) -> NDArray[np.uint8]:
    """Return digests as uint8 `[n, size]`."""
    joined = bytearray()
    for value in values:
        joined += value
    return np.frombuffer(joined, np.uint8).reshape(-1, size)


class DigestIndex:
    """Rows of digests, found by binary search; of equal ones the first.

    Args:
        keys: uint8 `[n, 16]`, or longer ones.
    """

    def __init__(self, keys: Digests) -> None:
        self._keys, first = keys, _words(keys)[:, 0]
        self._order = np.argsort(first, kind="stable").astype(np.int32)
        self._sorted = first[self._order]

    def find(self, wanted: Digests) -> NDArray[np.int64]:
        """Return the row of each digest, int64 `[m]`; -1 for those that are not there."""
        found = np.full(len(wanted), -1)
        if len(self._keys):
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                at = np.searchsorted(self._sorted, _words(some)[:, 0])
                row = self._order[np.minimum(at, len(self._keys) - 1)]
                # two that differ after eight bytes alone are as good as unknown: never yet seen
                is_equal = (self._keys[row] == some).all(axis=1)
                found[start : start + _AT_ONCE] = np.where(is_equal, row, -1)
        return found


def first_equal(keys: Digests) -> NDArray[np.int64]:
    """Return for each digest the first row that has it, int64 `[n]`."""
    order, is_new = _grouped(_words(keys).T)
    found = np.empty(len(keys), np.int64)
    found[order] = order[is_new][np.cumsum(is_new) - 1]
    return found


def last_of_each(keys: Digests) -> NDArray[np.int64]:
    """Return the last row with each digest, sorted by the digests, int64 `[k]`."""
    order, is_new = _grouped(sort_keys(keys))
    return order[np.roll(is_new, -1)]  # the last of all is followed by the first of all


def _grouped(
    words: Sequence[NDArray[Any]] | NDArray[Any],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return rows such that equal ones follow each other, and which of them differ from the last.

    Args:
        words: of the rows' digests, each `[n]`; `numpy.lexsort` sorts by the last one first.
    """
    order = np.lexsort(tuple(words))
    is_new = np.zeros(len(order), np.bool_)
    is_new[:1] = True
    for word in words:
        ordered = word[order]
        is_new[1:] |= ordered[1:] != ordered[:-1]
    return order, is_new


def sort_keys(keys: Digests) -> list[NDArray[np.uint64]]:
    """Return what `numpy.lexsort` sorts digests by, as their bytes are: the last part first."""
    words = _words(keys).view(">u8")
    return [words[:, place].astype(np.uint64) for place in reversed(range(words.shape[1]))]


def _words(keys: NDArray[np.uint8]) -> NDArray[Any]:
    return np.ascontiguousarray(keys).view(np.uint64)
