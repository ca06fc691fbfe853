"""Class folders: how a tree of images is read as rows with labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from automl.data.files import FileEntry
from automl.data.findings import Finding, FindingKind
from automl.data.names import readable
from automl.tracks.image.split_folders import find_split

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
)


@dataclass(frozen=True, slots=True)
class ClassFile:
    """A file in a class folder.

    Attributes:
        entry: its line of the listing.
        path: below the source.
        label: name of its class folder.
        is_test: whether it lies in the folder of test rows.
    """

    entry: FileEntry
    path: PurePosixPath
    label: str
    is_test: bool


@dataclass(slots=True)
class ClassFolders:
    """Class folders of a source, and what else lies there.

    Attributes:
        files: those that may be images, in the listing's order.
        findings: what was left out or taken otherwise than it may seem.
        test_folder: path of the folder of test rows, if the source is divided; else "".
    """

    files: list[ClassFile] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    test_folder: str = ""


def read_folders(
    entries: Iterable[FileEntry], start: str, uri: str, *, may_split: bool = False
) -> ClassFolders:
    """Return the class folders that entries make.

    The folders at the top are the classes. A single one that holds nothing but folders is a wrapper
    around them, as archives have. One for training, one for tests and perhaps one for validation,
    all with class folders, are parts of a split.

    Args:
        entries: the files below the source.
        start: what their keys begin with.
        uri: of the source, for people.
        may_split: whether test rows may be told from others.

    Raises:
        DataError: the folders at the top are parts of a split that cannot be used as it is.
    """
    ignored = _Ignored()
    images = list(_images(entries, start, ignored))
    found, depth = ClassFolders(), 0
    while _is_wrapped([path.parts[depth:] for _, path in images]):
        name = readable("/".join(images[0][1].parts[: depth + 1]))
        text = "the only folder at the top holds the class folders"
        found.findings.append(Finding.of(FindingKind.WRAPPER_FOLDER, text, [name], 1))
        depth += 1
    wrapper = "".join(f"/{part}" for part in images[0][1].parts[:depth]) if images else ""
    split = find_split([path.parts[depth:] for _, path in images], uri + readable(wrapper))
    if split is not None:
        split.check(may_split=may_split)
        found.test_folder = "/".join([*images[0][1].parts[:depth], split.test])
        found.findings.append(split.finding())
        depth += 1
    nested = []
    for entry, path in images:
        if len(path.parts) < depth + 2:
            ignored.add("images outside of class folders", path)
            continue
        if len(path.parts) > depth + 2:
            nested.append(readable(str(path)))
        is_test = split is not None and path.parts[depth - 1] == split.test
        found.files.append(ClassFile(entry, path, path.parts[depth].strip(), is_test))
    if nested:
        text = "files in folders of class folders belong to the class at the top"
        found.findings.append(Finding.of(FindingKind.NESTED_FILES, text, nested, len(nested)))
    found.findings += ignored.findings()
    return found


def _images(
    entries: Iterable[FileEntry], start: str, ignored: _Ignored
) -> Iterator[tuple[FileEntry, PurePosixPath]]:
    """Yield the files that may be images, with their paths; the others are ignored."""
    for entry in entries:
        path = PurePosixPath(entry.key.removeprefix(start))
        if any(name.startswith(".") for name in path.parts):
            ignored.add("hidden files", path)
        elif not is_image_name(path.name):
            ignored.add(readable(path.suffix.lower()) or "no suffix", path)
        else:
            yield entry, path


def is_image_name(name: str) -> bool:
    """Return whether a file's name says that it is an image."""
    return PurePosixPath(name).suffix.lower() in _SUFFIXES


class _Ignored:
    """Files that are left out, by what they are."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, path: PurePosixPath) -> None:
        self._counts[what] += 1
        if len(self._examples[what]) < 2:
            self._examples[what].append(readable(str(path)))

    def findings(self) -> Iterator[Finding]:
        for what, count in sorted(self._counts.items()):
            text = f"{count:,} files are no rows ({what})"
            yield Finding.of(FindingKind.IGNORED_FILES, text, self._examples[what], count)


def _is_wrapped(paths: Sequence[tuple[str, ...]]) -> bool:
    """Return whether all images are in folders of one folder."""
    tops = {path[0] for path in paths}
    return len(tops) == 1 and all(len(path) > 2 for path in paths)
