"""Halves of rows, of which each is predicted by what has learnt from the other (cross-fitting)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_KEY = b"halves"  # of the hash, so that the order is not that by which a split holds rows out


def second_half(digests: Sequence[str], labels: Sequence[object]) -> NDArray[np.bool_]:
    """Return whether each row is in the second half [n].

    Of each label every other row is, in the order of a hash of the digests, so that both halves
    have as many rows of it, but for one. Rows of equal digests, whatever their labels, share a
    half: a row is not predicted by what has learnt from its copy.

    Args:
        digests: of the rows' content, hexadecimal.
        labels: by which the halves are alike; of rows of equal digests the first one's counts.
    """
    owner: dict[str, object] = {}
    for digest, label in zip(digests, labels, strict=True):
        owner.setdefault(digest, label)
    seen: dict[object, int] = {}
    is_second = {}
    for digest in sorted(owner, key=_place):
        # labels begin in turn with either half: of many with one row each not all are in the first
        count = seen.setdefault(owner[digest], len(seen))
        is_second[digest] = bool(count % 2)
        seen[owner[digest]] = count + 1
    return np.array([is_second[digest] for digest in digests], np.bool_)


def _place(digest: str) -> tuple[bytes, str]:
    return blake2b(bytes.fromhex(digest), digest_size=8, key=_KEY).digest(), digest
