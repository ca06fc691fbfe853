"""Values that were computed lately and are likely to be needed again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, of which the ones unused for longest are forgotten.

    Args:
        size: how many are kept at most.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, compute: Callable[[], V]) -> V:
        """Return the value of a key, computed if it is not known any more."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = compute()
        self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep a value."""
        self._values[key] = value
        if len(self._values) > self._size:
            self._values.popitem(last=False)
