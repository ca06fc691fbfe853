"""Class folders: how a tree of images is read as rows with labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from automl.data.files import FileEntry
from automl.data.findings import Finding, FindingKind
from automl.data.names import readable
from automl.errors import DataError

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
)
_TRAINING = frozenset({"train", "training", "trainset"})
_HELD_OUT = frozenset({"test", "testing", "testset", "val", "valid", "validation", "dev", "eval"})


@dataclass(frozen=True, slots=True)
class ClassFile:
    """A file in a class folder.

    Attributes:
        entry: its line of the listing.
        path: below the source.
        label: name of its class folder.
    """

    entry: FileEntry
    path: PurePosixPath
    label: str


@dataclass(slots=True)
class ClassFolders:
    """Class folders of a source, and what else lies there.

    Attributes:
        files: those that may be images, in the listing's order.
        findings: what was left out or taken otherwise than it may seem.
    """

    files: list[ClassFile] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def read_folders(entries: Iterable[FileEntry], start: str, uri: str) -> ClassFolders:
    """Return the class folders that entries make.

    The folders at the top are the classes. A single one that holds nothing but folders is a wrapper
    around them, as archives have.

    Args:
        entries: the files below the source.
        start: what their keys begin with.
        uri: of the source, for people.

    Raises:
        DataError: the folders at the top are parts of a split, each with class folders of its own.
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
    _refuse_split([path.parts[depth:] for _, path in images], uri + readable(wrapper))
    nested = []
    for entry, path in images:
        if len(path.parts) < depth + 2:
            ignored.add("images outside of class folders", path)
            continue
        if len(path.parts) > depth + 2:
            nested.append(readable(str(path)))
        found.files.append(ClassFile(entry, path, path.parts[depth].strip()))
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


def _refuse_split(paths: Sequence[tuple[str, ...]], uri: str) -> None:
    tops = {path[0] for path in paths if len(path) > 1}
    names = {top.strip().casefold() for top in tops}
    if len(names) < 2 or not names & _TRAINING or not names <= _TRAINING | _HELD_OUT:
        return
    (training, *_) = sorted(top for top in tops if top.strip().casefold() in _TRAINING)
    told = ", ".join(map(readable, sorted(tops)))
    if any(len(path) > 2 for path in paths):
        raise DataError(
            f"The folders of {uri} are parts of a split ({told}), not classes.",
            f"name {uri}/{training} as data.source, and the folder of test rows as "
            "data.test_source, without which a part of data.source is held out; or put the class "
            "folders of all parts together",
        )
    raise DataError(
        f"The folders of {uri} are parts of a split ({told}) without class folders.",
        "give each class a folder, or name a CSV manifest with the label of each image",
    )
