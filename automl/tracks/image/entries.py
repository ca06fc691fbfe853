"""Lines of stores' listings in columns, about a hundred bytes each; see `SourceRows`."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from automl.data.files import FileEntry
from automl.data.texts import Coded, Texts, TextsBuilder
from automl.tracks.image.archives import ArchiveEntry
from automl.tracks.image.source_rows import SourceRows


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Lines of a listing.

    Attributes:
        keys: the files' keys.
        places: their keys for workers: those of members of archives tell where each begins.
        sizes: int64 `[n]`, bytes.
        etags: change with the content.
        unreadable: why nobody could read files, by their places, as the end of a sentence.
    """

    keys: Texts
    places: Texts
    sizes: NDArray[np.int64]
    etags: Texts
    unreadable: Mapping[int, str]

    @classmethod
    def of(cls, entries: Iterable[FileEntry]) -> Entries:
        """Return lines as columns."""
        builder = EntriesBuilder()
        for entry in entries:
            builder.append(entry)
        return builder.built()

    def problem(self, place: int) -> str:
        """Return why nobody can read a file, or ""."""
        return f"it {self.unreadable[place]}" if place in self.unreadable else ""

    def rows(
        self,
        places: NDArray[np.int32],
        paths: Texts,
        labels: Coded,
        problems: Mapping[int, str],
        values: Texts | None = None,
    ) -> SourceRows:
        """Return rows with these files.

        Args:
            places: of the rows' files; -1 for none.
            paths: how the source calls the rows.
            labels: of the rows.
            problems: why rows cannot be used.
            values: of a further column; None without one.
        """
        return SourceRows(
            paths=paths,
            labels=labels,
            keys=self.places.take(places),
            sizes=np.append(self.sizes, 0)[places],
            etags=self.etags.take(places),
            values=Texts.blank(len(places)) if values is None else values,
            problems=problems,
        )


@dataclass(slots=True)
class EntriesBuilder:
    """Lines of a listing that are being collected."""

    _keys: TextsBuilder = field(default_factory=TextsBuilder)
    _places: TextsBuilder = field(default_factory=TextsBuilder)
    _sizes: array[int] = field(default_factory=lambda: array("q"))
    _etags: TextsBuilder = field(default_factory=TextsBuilder)
    _unreadable: dict[int, str] = field(default_factory=dict)

    def append(self, entry: FileEntry) -> int:
        """Add a line, and return its place."""
        place = len(self._sizes)
        self._keys.append(entry.key)
        if isinstance(entry, ArchiveEntry):
            self._places.append(entry.place)
        self._sizes.append(entry.size_bytes)
        self._etags.append(entry.etag)
        if entry.unreadable:
            self._unreadable[place] = entry.unreadable
        return place

    def built(self) -> Entries:
        """Return the lines; nothing can be added any more."""
        sizes = np.frombuffer(self._sizes, np.int64)
        keys, places = self._keys.built(), self._places.built()
        of_archive = len(places) > 0
        return Entries(
            keys, places if of_archive else keys, sizes, self._etags.built(), self._unreadable
        )
