"""Plain documents that strangers wrote: copied within bounds, and shown within bounds."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from automl.errors import Problem

_MOST_PARTS, _MOST_DEPTH = 20_000, 32
_MOST_SHOWN = 120  # characters


class _Short(reprlib.Repr):
    """Representation of any value in a few characters."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _MOST_SHOWN
        self.maxlevel = 4

    def repr_int(self, number: int, level: int) -> str:
        """Return a number; Python itself refuses to write very long ones."""
        if number.bit_length() > 200:
            return f"an integer of {number.bit_length()} bits"
        return repr(number)

    def repr_str(self, text: str, level: int) -> str:
        """Return a text as Python would write it, its end cut off if it is long."""
        return repr(text) if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]!r}…"


_SHORT = _Short()


def shown(value: object) -> str:
    """Return a value as Python would write it, in a line and cut where it is long."""
    return _SHORT.repr(value)


def shown_key(key: object) -> str:
    """Return a key for a key path: as it is if that can be read, else as Python would write it."""
    text = key if isinstance(key, str) else shown(key)
    return text if text.isprintable() and len(text) <= _MOST_SHOWN else shown(text)


def plain_copy(document: Mapping[Any, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return a copy of a mapping whose keys are texts, and the keys that are none as problems.

    Raises:
        ValueError: it is larger or nested deeper than any study; the message says so.
    """
    copy = _Copy()
    return copy.mapping(document, ""), copy.problems


class _Copy:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._parts = 0

    def mapping(self, value: Mapping[Any, Any], path: str, depth: int = 1) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, inner in value.items():
            if isinstance(key, str):
                place = f"{path}.{shown_key(key)}" if path else shown_key(key)
                copied[key] = self._value(inner, place, depth)
            else:
                self.problems.append(Problem(path, f"the key {shown(key)} is no text; quote it"))
        return copied

    def _value(self, value: Any, path: str, depth: int) -> Any:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise ValueError(f"more than {_MOST_PARTS} keys and values")
        if not isinstance(value, Mapping | list | tuple):
            return value
        if depth >= _MOST_DEPTH:
            raise ValueError(f"{_MOST_DEPTH} or more levels")
        if isinstance(value, Mapping):
            return self.mapping(value, path, depth + 1)
        return [self._value(each, path, depth + 1) for each in value]
