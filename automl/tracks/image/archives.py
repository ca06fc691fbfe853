"""Archives of images, zip and tar: read in place, member by member, nothing is unpacked to a disk.

What an archive says is not believed: members are counted, sizes hold while content is expanded, and
what would mean something else elsewhere (names that lead out, links, two members of one name) is a
row that cannot be used, with its reason.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from automl.data.files import FileEntry, SourceStore, StoredFile
from automl.data.ranged import RangedFile
from automl.domain.sources import ARCHIVE_SUFFIXES
from automl.errors import DataError, NotFoundError
from automl.machine.memory import usable_bytes
from automl.tracks.image.extents import Extent
from automl.tracks.image.tars import read_tar
from automl.tracks.image.zips import Member, read_zip

MOST_MEMBERS = 2_000_000
INDEX_SHARE = 0.25  # of the memory left: what is known of the members
MEMBER_BYTES = 1000  # what is known of one, and its row, without its name
_NAME_FACTOR = 4  # a name is in the index, in the row and in its key
_FORMS = {".zip": read_zip, ".tar": read_tar}
_READ_AT_ONCE = {".zip": 2**20, ".tar": 2**22}  # bytes; a tar archive's headers are all over it
_COMPRESSED = (
    ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".gz", ".7z",
    ".rar",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Content:
    """Content of a member.

    Attributes:
        data: the bytes.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """Member of an archive as a line of a listing; see `FileEntry`.

    Attributes:
        key: its name, without superfluous dots and slashes.
        size_bytes: of its content.
        etag: changes with the content.
        place: its key in `ArchiveFiles`.
        unreadable: why nobody can read it, as the end of a sentence; "" if it can be tried.
    """

    key: str
    size_bytes: int
    etag: str
    place: str
    unreadable: str = ""

    @property
    def problem(self) -> str:
        """Nothing: whoever may read the archive may read its members."""
        return ""


@dataclass(frozen=True, slots=True)
class ArchiveFiles:
    """Members of an archive, whose keys tell where each begins; nothing of the index is needed.

    Attributes:
        store: holds the archive.
        archive: its key.
    """

    store: SourceStore
    archive: str

    @property
    def uri(self) -> str:
        """The archive."""
        return f"{self.store.uri.rstrip('/')}/{self.archive}"

    def get(self, key: str) -> StoredFile:
        """Return the content of a member.

        Raises:
            DataError: it is damaged, or larger than the archive says; the message is the reason.
            NotFoundError: the archive is gone.
        """
        return Content(Extent.of_key(key).read(self.store, self.archive))

    def list(self, prefix: str, start_after: str = "") -> Iterator[FileEntry]:
        """Yield the members whose keys start with `prefix`, sorted by key; the archive is read."""
        index = Archive.open(self.store, self.archive)
        keyed = sorted((entry.place, entry) for entry in index.entries.values())
        for place, entry in keyed:
            if place.startswith(prefix) and place > start_after:
                yield ArchiveEntry(place, entry.size_bytes, entry.etag, place, entry.unreadable)


@dataclass(frozen=True, slots=True)
class Archive:
    """Archive whose directory has been read; a store of its members by their names.

    Attributes:
        files: what reads them elsewhere.
        entries: by name, sorted.
        names: the same names.
        crooked: members whose names lead out of the archive, with the reason.
    """

    files: ArchiveFiles
    entries: Mapping[str, ArchiveEntry]
    names: tuple[str, ...]
    crooked: Mapping[str, str]

    @classmethod
    def open(cls, store: SourceStore, key: str) -> Archive:
        """Return an archive.

        Args:
            store: holds it.
            key: its key.

        Raises:
            DataError: it is damaged, or has too many members.
            NotFoundError: there is none.
        """
        archive = next(iter(store.list(key)), None)
        if archive is None or archive.key != key:
            raise NotFoundError(f"There is no {key} in {store.uri}.")
        files = ArchiveFiles(store, key)
        entries: dict[str, ArchiveEntry] = {}
        crooked: dict[str, str] = {}
        for member in _bounded(_members(store, archive), files.uri):
            name, why = _plain(member.name)
            if why:
                crooked[member.name] = why
                continue
            why = member.unreadable
            if name in entries:
                why = "is in the archive more than once"
            extent = member.extent
            # a tar archive knows nothing of its members' content: any change of it may be theirs
            tag = member.tag or f"{archive.etag}-{extent.start:x}"
            entries[name] = ArchiveEntry(name, extent.size_bytes, tag, extent.key(name), why)
        names = tuple(sorted(entries))
        return cls(files, {name: entries[name] for name in names}, names, crooked)

    @property
    def uri(self) -> str:
        """The archive."""
        return self.files.uri

    def get(self, key: str) -> StoredFile:
        """Return the content of a member; raise NotFoundError if there is none."""
        entry = self.entries.get(key)
        if entry is None:
            raise NotFoundError(f"There is no {key} in {self.uri}.")
        if entry.unreadable:
            raise DataError(f"{key} of {self.uri} {entry.unreadable}.", "make the archive again")
        return self.files.get(entry.place)

    def get_range(self, key: str, start: int, size_bytes: int) -> bytes:
        """Return a part of the content of a member, all of which is expanded for it."""
        return self.get(key).data[start : start + size_bytes]

    def list(self, prefix: str, start_after: str = "") -> Iterator[FileEntry]:
        """Yield the members whose names start with `prefix`, sorted by name."""
        first = bisect.bisect_left(self.names, prefix)
        for place in range(first, len(self.names)):
            name = self.names[place]
            if not name.startswith(prefix):
                return
            if name > start_after:
                yield self.entries[name]


def find_archive(store: SourceStore, key: str) -> tuple[str, str] | None:
    """Return the key of the archive that a location is, or lies in, and the rest of the location.

    A folder may be called as an archive is, and is none.

    Args:
        store: holds the location.
        key: of the location.

    Raises:
        DataError: it is an archive that cannot be read in place.
    """
    parts = key.strip("/").split("/")
    for place, part in enumerate(parts, start=1):
        name, at = part.lower(), "/".join(parts[:place])
        is_known = PurePosixPath(name).suffix in ARCHIVE_SUFFIXES
        if not (is_known or name.endswith(_COMPRESSED)):
            continue
        entry = next(iter(store.list(at)), None)
        if entry is None or entry.key != at:
            continue
        if not is_known:
            raise DataError(
                f"{store.uri.rstrip('/')}/{at} is an archive that can only be read from its start.",
                "unpack it; or make it a .zip or a plain .tar, which are read in place",
            )
        return at, "/".join(parts[place:])
    return None


def _members(store: SourceStore, archive: FileEntry) -> Iterator[Member]:
    suffix = PurePosixPath(archive.key).suffix.lower()
    raw = RangedFile(store, archive.key, archive.size_bytes)
    with io.BufferedReader(raw, _READ_AT_ONCE[suffix]) as file:
        name = f"{store.uri.rstrip('/')}/{archive.key}"
        yield from _FORMS[suffix](file, archive.size_bytes, name)


def _bounded(members: Iterator[Member], name: str) -> Iterator[Member]:
    """Yield members as long as they are not too many.

    Raises:
        DataError: they are.
    """
    left_bytes = INDEX_SHARE * usable_bytes()
    for number, member in enumerate(members, start=1):
        left_bytes -= MEMBER_BYTES + _NAME_FACTOR * len(member.name)
        if number > MOST_MEMBERS or left_bytes < 0:
            raise DataError(
                f"{name} has more members than {min(number - 1, MOST_MEMBERS):,}, which is all "
                "that can be read here.",
                "divide it, use a folder of files, or prepare where there is more memory",
            )
        yield member


def _plain(name: str) -> tuple[str, str]:
    """Return a member's name in its one spelling; and why it has none, or ""."""
    if name.startswith("/") or name[1:3] in {":/", ":\\"}:
        return name, "its name in the archive is absolute; make the archive again from its folder"
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if not parts or ".." in parts:
        return name, "its name leads out of the archive; make the archive again without '..'"
    return "/".join(parts), ""
