"""Rows of a source as values, and what keeps one from being used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from automl.data.corrections import Applied
from automl.data.digest_index import Digests, digests
from automl.data.files import FileEntry, FileStore, SourceStore
from automl.data.findings import Finding
from automl.data.names import is_unicode
from automl.data.texts import Texts
from automl.errors import DataError, NotFoundError, Problem
from automl.machine.memory import usable_bytes
from automl.tracks.image.entries import Entries
from automl.tracks.image.source_rows import SourceRows
from automl.tracks.image.tables import FurtherColumn

MOST_PROBLEMS = 20  # that are told
_LINKS = "remove these links, or copy there what they lead to"


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """Images beside a manifest that none of its rows names; see `Listings`.

    Attributes:
        places: uint8 `[n, 16]`, digests of their URIs.
        shown: how people are shown them.
    """

    places: Digests
    shown: Texts


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """All rows of a source.

    Attributes:
        rows: in the source's order.
        store: holds the rows' files; small, since it goes to workers with each part of the rows.
        pixels: uint8 `[n, H, W, C]` of an array source, else None.
        findings: what is odd about the source.
        named: uint8 `[n, 16]`, digests of the URIs of the files that a manifest's rows name.
        beside: images beside these files that no row names.
        applied: the rows that a person's corrections have changed.
        test_folder: key of the folder of test rows, if the source is divided; else "".
        tests: number of the rows in it, which are the last ones.
    """

    rows: SourceRows
    store: FileStore
    pixels: NDArray[np.uint8] | None = None
    findings: tuple[Finding, ...] = ()
    named: Digests = field(default_factory=lambda: digests(()))
    beside: Beside = field(default_factory=lambda: Beside(digests(()), Texts.of(())))
    applied: tuple[Applied, ...] = ()
    test_folder: str = ""
    tests: int = 0

    def divided(self) -> tuple[Listing, Listing]:
        """Return the rows of a source that is divided: those before its test rows, and these."""
        first = len(self.rows) - self.tests
        return (
            replace(self, rows=self.rows[:first], test_folder="", tests=0),
            Listing(self.rows[first:], self.store),
        )


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Location of the rows.

    Attributes:
        store: holds `key`.
        key: a table of files, an `.npz` file, an archive or a place in one, or else the folder of
            class folders.
        images: holds the table's files; None: `store`.
        images_prefix: where the table's paths start; None: beside the table.
        label: the table's label column; None: the first of the usual names.
        further: a column that the table has to have, too.
        locate: gives the store that holds an absolute path or a URI, and its key there, as
            `DatasetRequest.locate` does; None: the table may have relative paths alone.
        name: key of the study file that names the location.
        may_split: whether test rows may be told from others by their folder.
    """

    store: SourceStore
    key: str
    images: SourceStore | None = None
    images_prefix: str | None = None
    label: str | None = None
    further: FurtherColumn | None = None
    locate: Callable[[str], tuple[SourceStore, str]] | None = None
    name: str = "data.source"
    may_split: bool = False

    @property
    def uri(self) -> str:
        """Place of the source, for people."""
        return f"{self.store.uri.rstrip('/')}/{self.key}".rstrip("/")


def source_size(location: SourceLocation) -> int:
    """Return the size of a source that is a file.

    Raises:
        DataError: there is no such file.
    """
    entry = next(iter(location.store.list(location.key)), None)
    if entry is not None and entry.key == location.key:
        return entry.size_bytes
    if next(iter(location.store.list(f"{location.key}/")), None) is not None:
        raise DataError(f"{location.uri} is a folder, not a file.", "name one file in it")
    raise DataError(f"{location.uri} does not exist.", f"correct {location.name}")


def read_source(location: SourceLocation, share: float) -> bytes:
    """Return the bytes of a source that is a file, which may take a share of the memory left.

    Raises:
        DataError: there is no such file, or it is larger.
    """
    most = int(share * usable_bytes())
    size_bytes = source_size(location)
    if size_bytes > most:
        raise DataError(
            f"{location.uri} has {size_bytes:,} bytes, and may have {most:,} here.",
            "divide it, use a folder of files, or prepare where there is more memory",
        )
    try:
        return location.store.get(location.key).data
    except NotFoundError as error:
        raise DataError(f"{location.uri} does not exist.", f"correct {location.name}") from error


def read_entries(location: SourceLocation, start: str) -> Entries:
    """Return the files whose keys start with `start`.

    Raises:
        DataError: some may not be read, and are not hidden.
    """
    problems = []

    def allowed() -> Iterator[FileEntry]:
        for entry in location.store.list(start):
            if entry.problem and not is_hidden(entry.key.removeprefix(start)):
                problems.append(Problem(entry.key, f"it {entry.problem}"))
            yield entry

    entries = Entries.of(allowed())
    refuse(location, problems, _LINKS)
    return entries


def refuse(location: SourceLocation, problems: list[Problem], hint: str) -> None:
    """Refuse a source for what is in it that may not be read.

    Args:
        location: of the source.
        problems: with each file or folder.
        hint: the remedy.

    Raises:
        DataError: there are some.
    """
    if problems:
        raise DataError(
            f"{len(problems)} files or folders of {location.uri} may not be read.",
            hint,
            problems[:MOST_PROBLEMS],
        )


def label_problem(label: str) -> str:
    """Return why a label cannot be used, or ""."""
    if not label:
        return "the row has no label"
    return "" if is_unicode(label) else "the label is no Unicode text"


def is_hidden(path: str) -> bool:
    """Return whether a file, or a folder that it is in, has a name that begins with a dot."""
    return any(name.startswith(".") for name in path.split("/"))
