"""Class folders: how a tree of images is read as rows with labels."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath

from automl.data.findings import MOST_EXAMPLES, Finding, FindingKind
from automl.data.names import readable
from automl.tracks.image.split_folders import find_split

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
)


@dataclass(frozen=True, slots=True)
class ClassFile:
    """A file in a class folder.

    Attributes:
        place: of its line in the listing.
        path: below the source.
        label: name of its class folder.
    """

    place: int
    path: str
    label: str


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """Class folders of a source, and what else lies there.

    Attributes:
        images: paths below the source.
        places: of the files that may be images, in the listing's order.
        tests: of those in the folder of test rows, which are not among the others.
        depth: of the class folders.
        findings: what was left out or taken otherwise than it may seem.
        test_folder: path of the folder of test rows, if the source is divided; else "".
    """

    images: _Images
    places: array[int]
    tests: array[int]
    depth: int
    findings: list[Finding]
    test_folder: str = ""

    @property
    def files(self) -> Iterator[ClassFile]:
        """The files that may be images, in the listing's order, those of test rows last."""
        for place, parts in chain(self.images.of(self.places), self.images.of(self.tests)):
            yield ClassFile(place, _path(parts), parts[self.depth].strip())


def read_folders(
    keys: Sequence[str], start: str, uri: str, *, may_split: bool = False
) -> ClassFolders:
    """Return the class folders that files make.

    The folders at the top are the classes. A single one that holds nothing but folders is a wrapper
    around them, as archives have. One for training, one for tests and perhaps one for validation,
    all with class folders, are parts of a split.

    Args:
        keys: of the files below the source.
        start: what they begin with.
        uri: of the source, for people.
        may_split: whether test rows may be told from others.

    Raises:
        DataError: the folders at the top are parts of a split that cannot be used as it is.
    """
    ignored = _Ignored()
    images = _Images(keys, start)
    places = images.found(ignored)
    wrappers, findings = _wrappers(images, places)
    depth, wrapper = len(wrappers), "".join(f"/{name}" for name in wrappers)
    split = find_split((parts[depth:] for _, parts in images.of(places)), uri + readable(wrapper))
    if split is not None:
        split.check(may_split=may_split)
        findings.append(split.finding())
        depth += 1
    test = None if split is None else split.test
    kept, tests, nested = _divided(images, places, depth, test, ignored)
    findings += [*nested, *ignored.findings()]
    test_folder = "" if test is None else f"{wrapper}/{test}".removeprefix("/")
    return ClassFolders(images, kept, tests, depth, findings, test_folder)


def _divided(
    images: _Images, places: array[int], depth: int, test: str | None, ignored: _Ignored
) -> tuple[array[int], array[int], list[Finding]]:
    """Return the rows but those of tests, the latter, and a finding about those in deeper folders.

    Args:
        images: the files.
        places: of those that may be rows.
        depth: how many folders are around the class folders.
        test: the folder around those of tests; None without any.
        ignored: takes in what is no row.
    """
    kept, tests, nested, examples = array("q"), array("q"), 0, list[str]()
    for place, parts in images.of(places):
        if len(parts) < depth + 2:
            ignored.add("images outside of class folders", _path(parts))
            continue
        if len(parts) > depth + 2:
            nested += 1
            if nested <= MOST_EXAMPLES:
                examples.append(readable(_path(parts)))
        is_test = test is not None and parts[depth - 1] == test
        (tests if is_test else kept).append(place)
    if not nested:
        return kept, tests, []
    text = "files in folders of class folders belong to the class at the top"
    return kept, tests, [Finding.of(FindingKind.NESTED_FILES, text, examples, nested)]


def _wrappers(images: _Images, places: array[int]) -> tuple[Sequence[str], list[Finding]]:
    """Return the folders around the class folders, from the top, and a finding about each."""
    names: list[str] = []
    findings = []
    while _is_wrapped(parts[len(names) :] for _, parts in images.of(places)):
        (_, parts) = next(images.of(places))
        names.append(parts[len(names)])
        text = "the only folder at the top holds the class folders"
        findings.append(
            Finding.of(FindingKind.WRAPPER_FOLDER, text, [readable("/".join(names))], 1)
        )
    return names, findings


@dataclass(frozen=True, slots=True)
class _Images:
    """Paths of files; each is made when it is looked at.

    Attributes:
        keys: of all files below the source.
        start: what they begin with.
    """

    keys: Sequence[str]
    start: str

    def found(self, ignored: _Ignored) -> array[int]:
        """Return the places of the files that may be images; the others are ignored."""
        places = array("q")
        for place, key in enumerate(self.keys):
            parts = self._parts(key)
            name = parts[-1] if parts else ""
            if any(part.startswith(".") for part in parts):
                ignored.add("hidden files", _path(parts))
            elif not is_image_name(name):
                suffix = readable(PurePosixPath(name).suffix.lower())
                ignored.add(suffix or "no suffix", _path(parts))
            else:
                places.append(place)
        return places

    def of(self, places: array[int]) -> Iterator[tuple[int, Sequence[str]]]:
        """Yield places, and what the paths of the files there consist of."""
        wanted = iter(places)
        next_one = next(wanted, -1)
        for place, key in enumerate(self.keys):
            if place == next_one:
                yield place, self._parts(key)
                next_one = next(wanted, -1)

    def _parts(self, key: str) -> Sequence[str]:
        """Return the folders and the name of a file; slashes and dots without a meaning are none.

        An odd path is read by `PurePosixPath`, which takes ten times as long.
        """
        parts = key.removeprefix(self.start).split("/")
        is_plain = all(parts) and "." not in parts
        return parts if is_plain else PurePosixPath(key.removeprefix(self.start)).parts


def _path(parts: Sequence[str]) -> str:
    return "/".join(parts).replace("//", "/", 1) or "."


def is_image_name(name: str) -> bool:
    """Return whether a file's name says that it is an image."""
    at = name.rfind(".")
    return at > name.rfind("/") + 1 and name[at:].lower() in _SUFFIXES


class _Ignored:
    """Files that are left out, by what they are."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, path: str) -> None:
        self._counts[what] += 1
        if len(self._examples[what]) < 2:
            self._examples[what].append(readable(path))

    def findings(self) -> Iterator[Finding]:
        for what, count in sorted(self._counts.items()):
            text = f"{count:,} files are no rows ({what})"
            yield Finding.of(FindingKind.IGNORED_FILES, text, self._examples[what], count)


def _is_wrapped(paths: Iterable[Sequence[str]]) -> bool:
    """Return whether all images are in folders of one folder."""
    top = None
    for path in paths:
        if len(path) <= 2 or path[0] != (top or path[0]):
            return False
        top = path[0]
    return top is not None
