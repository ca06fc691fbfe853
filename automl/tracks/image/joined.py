"""Files of several stores as those of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from automl.data.files import FileEntry, FileStore, StoredFile
from automl.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class JoinedEntry:
    """Line of a listing of several stores; see `FileEntry`."""

    key: str
    size_bytes: int
    etag: str
    problem: str
    unreadable: str


@dataclass(frozen=True, slots=True)
class JoinedFiles:
    """Several stores, whose keys begin with the number of the store: `0/cat/1.png`.

    Each judges for itself what may be read of it, wherever that happens.

    Attributes:
        stores: by their numbers.
    """

    stores: tuple[FileStore, ...]

    @staticmethod
    def key(number: int, key: str) -> str:
        """Return the key of what a store has under a key of its own."""
        return f"{number}/{key}"

    @property
    def uri(self) -> str:
        """Places of all stores."""
        return ", ".join(store.uri for store in self.stores)

    def get(self, key: str) -> StoredFile:
        """Return the content of a key; raise NotFoundError if there is none."""
        number, _, rest = key.partition("/")
        if not number.isdecimal() or int(number) >= len(self.stores):
            raise NotFoundError(f"There is no {key} in {self.uri}.")
        return self.stores[int(number)].get(rest)

    def list(self, prefix: str, start_after: str = "") -> Iterator[FileEntry]:
        """Yield the entries whose keys start with `prefix`, sorted by key."""
        numbered = sorted(enumerate(self.stores), key=lambda each: f"{each[0]}/")
        for number, store in numbered:
            start = f"{number}/"
            if not (prefix.startswith(start) or start.startswith(prefix)):
                continue
            rest = prefix.removeprefix(start) if prefix.startswith(start) else ""
            for entry in store.list(rest):
                key = start + entry.key
                if key.startswith(prefix) and key > start_after:
                    yield JoinedEntry(
                        key, entry.size_bytes, entry.etag, entry.problem, entry.unreadable
                    )
