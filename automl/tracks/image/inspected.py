"""Findings about the rows of listings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Inspected:
    """Findings about all rows of listings.

    Attributes:
        contents: int64 `[n]`, index of each row's content in the ledger; -1 if none is known.
        digests: uint8 `[k, 32]`, of the pixels of the ledger's contents.
        problems: why rows cannot be used, by their index.
    """

    contents: NDArray[np.int64]
    digests: NDArray[np.uint8]
    problems: Mapping[int, str]

    @property
    def usable(self) -> NDArray[np.int64]:
        """Indices of the rows that can be used."""
        is_usable = np.ones(len(self.contents), np.bool_)
        is_usable[list(self.problems)] = False
        return np.flatnonzero(is_usable)

    def digests_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the digests of the pixels of some rows that can be used, uint8 `[m, 32]`."""
        return self.digests[self.contents[rows]]
