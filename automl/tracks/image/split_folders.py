"""Folders that are parts of a split, such as `train` and `test`, where classes are expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from automl.data.findings import MOST_EXAMPLES, Finding, FindingKind
from automl.data.names import readable
from automl.errors import DataError

_TRAINING = frozenset({"train", "training", "trainset"})
_TEST = frozenset({"test", "testing", "testset"})
_VALIDATION = frozenset({"val", "valid", "validation", "dev", "eval"})


@dataclass(frozen=True, slots=True)
class SplitFolders:
    """Folders that are parts of a split.

    Attributes:
        uri: of what holds them, for people.
        classes: names of the class folders of each.
    """

    uri: str
    classes: Mapping[str, frozenset[str]]

    def _named(self, names: frozenset[str]) -> list[str]:
        return [top for top in sorted(self.classes) if top.strip().casefold() in names]

    @property
    def test(self) -> str:
        """The folder of test rows."""
        return self._named(_TEST)[0]

    def check(self, *, may_split: bool) -> None:
        """Check that it can be used as it is.

        Args:
            may_split: whether test rows may be told from others.

        Raises:
            DataError: it cannot.
        """
        told = ", ".join(map(readable, sorted(self.classes)))
        if not any(self.classes.values()):
            raise DataError(
                f"The folders of {self.uri} are parts of a split ({told}) without class folders.",
                "give each class a folder, or name a CSV manifest with the label of each image",
            )
        why = self._misfit() if may_split else "data.test_source names the test rows"
        if why:
            raise DataError(
                f"The folders of {self.uri} are parts of a split ({told}), not classes, and {why}.",
                f"name {self.uri}/{readable(self._named(_TRAINING)[0])} as data.source, and the "
                "folder of test rows as data.test_source, without which a part of data.source is "
                "held out; or put the class folders of all parts together",
            )

    def _misfit(self) -> str:
        """Return why it cannot be used as it is, or ""."""
        training, tests, validation = map(self._named, (_TRAINING, _TEST, _VALIDATION))
        if (len(training), len(tests)) != (1, 1) or len(validation) > 1:
            return "it is open which of them has the test rows"
        known = self.classes[training[0]].union(*(self.classes[name] for name in validation))
        unknown = sorted(self.classes[tests[0]] - known)
        if unknown:
            names = ", ".join(map(readable, unknown[:MOST_EXAMPLES]))
            return f"{readable(tests[0])} has class folders that no other part has ({names})"
        return f"{readable(tests[0])} has no class folders" if not self.classes[tests[0]] else ""

    def finding(self) -> Finding:
        """Return what is made of it."""
        others = [readable(name) for name in sorted(self.classes) if name != self.test]
        text = (
            f"{readable(self.test)} has the sealed test rows, as data.test_source would; rows of "
            f"{' and '.join(others)} are trained on and validated with, in parts of their own"
        )
        names = map(readable, sorted(self.classes))
        return Finding.of(FindingKind.SPLIT_FOLDERS, text, names, len(self.classes))


def find_split(paths: Iterable[Sequence[str]], uri: str) -> SplitFolders | None:
    """Return the split that the folders at the top are; None if they are classes.

    Args:
        paths: of the images, below the folder that `uri` is of.
        uri: of this folder, for people.
    """
    classes: dict[str, set[str]] = {}
    for path in paths:
        if len(path) > 1:
            of_top = classes.setdefault(path[0], set())
            if len(path) > 2:
                of_top.add(path[1].strip())
    names = {top.strip().casefold() for top in classes}
    if len(names) < 2 or not names & _TRAINING or not names <= _TRAINING | _TEST | _VALIDATION:
        return None
    return SplitFolders(uri, {top: frozenset(names) for top, names in classes.items()})
