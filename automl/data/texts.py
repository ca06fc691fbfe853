"""Columns of texts: as many as a listing has rows, in little more memory than their bytes.

A text of Python takes 50 bytes and more besides its letters. `Texts` keeps the letters of all of
them one after the other; `Coded` keeps few different texts, and which of them each row has.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1024  # values that are Python's at the same time
_SURROGATES = "surrogatepass"  # names that are not UTF-8, and labels that are no Unicode


def each(values: NDArray[Any]) -> Iterator[Any]:
    """Yield the values of an array as Python's own."""
    for first in range(0, len(values), _AT_ONCE):
        yield from values[first : first + _AT_ONCE].tolist()


class Texts(Sequence[str]):
    """Texts whose letters lie one after the other.

    Args:
        letters: of all texts, as UTF-8.
        ends: int64 `[k + 1]`, where each text ends, after a 0.
        places: int32 `[n]`, which of the k texts each row has, -1 for ""; None: each row its own.
    """

    __slots__ = ("_ends", "_letters", "_places")

    def __init__(
        self,
        letters: bytearray,
        ends: NDArray[np.int64],
        places: NDArray[np.int32] | None = None,
    ) -> None:
        self._letters, self._ends, self._places = letters, ends, places

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Return texts as a column."""
        builder = TextsBuilder()
        for text in texts:
            builder.append(text)
        return builder.built()

    @classmethod
    def blank(cls, rows: int) -> Texts:
        """Return a column without any letter."""
        return cls(bytearray(), np.zeros(1, np.int64), np.full(rows, -1, np.int32))

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._places is None else len(self._places)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> Texts: ...

    def __getitem__(self, row: int | slice) -> str | Texts:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        place = row % len(self) if self._places is None else int(self._places[row])
        if place < 0:
            return ""
        return self._text(int(self._ends[place]), int(self._ends[place + 1]))

    def __iter__(self) -> Iterator[str]:
        rows = len(self)
        for first in range(0, rows, _AT_ONCE):
            some = np.arange(first, min(first + _AT_ONCE, rows), dtype=np.int32)
            places = some if self._places is None else self._places[some]
            starts, ends = self._ends[places].tolist(), self._ends[places + 1].tolist()
            for place, start, end in zip(places.tolist(), starts, ends, strict=True):
                yield "" if place < 0 else self._letters[start:end].decode(errors=_SURROGATES)

    def _text(self, start: int, end: int) -> str:
        return self._letters[start:end].decode(errors=_SURROGATES)

    def take(self, rows: NDArray[np.integer[Any]]) -> Texts:
        """Return the texts of some rows, in their order; -1 stands for ""."""
        places = rows.astype(np.int32, copy=False)
        if self._places is not None:
            places = np.where(places < 0, places, self._places[places])
        return Texts(self._letters, self._ends, places)


class TextsBuilder:
    """Column of texts that is being made."""

    __slots__ = ("_ends", "_letters")

    def __init__(self) -> None:
        self._letters, self._ends = bytearray(), array("q", [0])

    def append(self, text: str) -> None:
        """Add a row."""
        self._letters += text.encode(errors=_SURROGATES)
        self._ends.append(len(self._letters))

    def built(self) -> Texts:
        """Return the column; nothing can be added any more."""
        return Texts(self._letters, np.frombuffer(self._ends, np.int64))


class Coded(Sequence[str]):
    """Texts of which few are different.

    Args:
        names: the different texts; there may be some that no row has.
        codes: int32 `[n]`, the place in `names` of each row's text.
    """

    __slots__ = ("codes", "names")

    def __init__(self, names: Sequence[str], codes: NDArray[np.int32]) -> None:
        self.names, self.codes = tuple(names), codes

    @classmethod
    def of(cls, texts: Iterable[str]) -> Coded:
        """Return texts as a column."""
        builder = CodedBuilder()
        for text in texts:
            builder.append(text)
        return builder.built()

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> Coded: ...

    def __getitem__(self, row: int | slice) -> str | Coded:
        if isinstance(row, slice):
            return Coded(self.names, self.codes[row])
        return self.names[int(self.codes[row])]

    def __iter__(self) -> Iterator[str]:
        return (self.names[code] for code in each(self.codes))

    def take(self, rows: NDArray[np.integer[Any]]) -> Coded:
        """Return the texts of some rows, in their order."""
        return Coded(self.names, self.codes[rows])

    def and_also(self, other: Coded) -> Coded:
        """Return these texts and the other's after them."""
        code_of = {name: code for code, name in enumerate(self.names)}
        codes = [code_of.setdefault(name, len(code_of)) for name in other.names]
        more = np.asarray(codes, np.int32)[other.codes]
        return Coded(tuple(code_of), np.concatenate([self.codes, more]))

    def sorted(self) -> Coded:
        """Return the same texts with sorted names, each of which some row has."""
        used = np.unique(self.codes).tolist()
        names = sorted(self.names[code] for code in used)
        place_of = {name: place for place, name in enumerate(names)}
        places = np.zeros(len(self.names), np.int32)
        places[used] = [place_of[self.names[code]] for code in used]
        return Coded(names, places[self.codes])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows of each name, int64 `[len(names)]`."""
        return np.bincount(self.codes, minlength=len(self.names))


class CodedBuilder:
    """Column of few different texts that is being made."""

    __slots__ = ("_codes", "_names")

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._codes = array("i")

    def append(self, text: str) -> None:
        """Add a row."""
        self._codes.append(self._names.setdefault(text, len(self._names)))

    def built(self) -> Coded:
        """Return the column; nothing can be added any more."""
        return Coded(tuple(self._names), np.frombuffer(self._codes, np.int32))
