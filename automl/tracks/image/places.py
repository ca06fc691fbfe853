"""Places that the paths of a manifest name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from automl.data.digest_index import digest_of

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LEAVES = "the path leaves the folder of images"


@dataclass(frozen=True, slots=True)
class Place:
    """Place that a path names.

    Attributes:
        root: "" for the folder of images, "/" for this machine, `s3://bucket/` for a bucket.
        path: below the root.
        problem: why it names none, or "".
    """

    root: str
    path: str
    problem: str = ""

    @property
    def folder(self) -> str:
        """The folder that it is in, below the root."""
        return self.path.rpartition("/")[0]

    @property
    def digest(self) -> bytes:
        """Digest that stands for the place where there are many."""
        return digest_of(f"{self.root}\0{self.path}")


def read_place(path: str, *, with_roots: bool) -> Place:
    """Return what a path names.

    Args:
        path: as the manifest has it.
        with_roots: whether it may be absolute.
    """
    if not path:
        return Place("", "", "the row has no path")
    root, below, problem = _split(path)
    parts = below.split("/")
    if problem:
        return Place(root, below, problem)
    if root and not with_roots:
        return Place(root, below, _LEAVES)
    if ".." in parts or "\0" in below:
        return Place(root, below, "the path has a segment '..' or a zero byte" if root else _LEAVES)
    if root.startswith("s3://"):
        crooked = len(root) < len("s3://b/") or {"", "."} & set(parts)
        return Place(root, below, "the s3:// address is not plain" if crooked else "")
    is_plain = all(parts) and "." not in parts  # `PurePosixPath` takes ten times as long
    plain = below if is_plain else str(PurePosixPath(below))
    return Place(root, plain, "the path names no file" if plain == "." else "")


def _split(path: str) -> tuple[str, str, str]:
    """Return the root that a path begins with, the rest, and why it cannot be read, or ""."""
    scheme = _SCHEME.match(path)
    if scheme is None:
        return ("/", path.lstrip("/"), "") if path.startswith("/") else ("", path, "")
    rest = path[scheme.end() :]
    if scheme[1] == "s3":
        bucket, _, key = rest.partition("/")
        return f"s3://{bucket}/", key, ""
    if scheme[1] == "file":
        try:
            parts = urlsplit(path)
        except ValueError:
            return "", path, "the file:// address cannot be read"
        if parts.netloc in {"", "localhost"} and not (parts.query or parts.fragment):
            return "/", unquote(parts.path).lstrip("/"), ""
        return "", path, "the file:// address is no file of this machine"
    return "", path, f"files of {scheme[1]}:// cannot be read"
