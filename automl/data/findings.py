"""Findings about a dataset: what is odd about it, though it can be learnt from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import StrEnum
from unicodedata import normalize

from pydantic import BaseModel, ConfigDict

MOST_EXAMPLES = 5


class FindingKind(StrEnum):
    """Kind of a finding, for programs."""

    IGNORED_FILES = "ignored_files"
    WRAPPER_FOLDER = "wrapper_folder"
    SPLIT_FOLDERS = "split_folders"
    NESTED_FILES = "nested_files"
    SIMILAR_LABELS = "similar_labels"
    UNTRAINED_CLASSES = "untrained_classes"
    UNTESTED_CLASSES = "untested_classes"
    EXCLUDED_ROWS = "excluded_rows"
    SERIES_OF_ROWS = "series_of_rows"
    DROPPED_ROWS = "dropped_rows"
    RELABELLED_ROWS = "relabelled_rows"
    NEW_LABELS = "new_labels"
    IDLE_CORRECTIONS = "idle_corrections"


class Finding(BaseModel):
    """Finding about a dataset.

    Attributes:
        kind: what kind it is.
        message: for people.
        count: how many files, rows or labels it is about.
        examples: some of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FindingKind
    message: str
    count: int
    examples: tuple[str, ...]

    @classmethod
    def of(cls, kind: FindingKind, message: str, names: Iterable[str], count: int) -> Finding:
        """Return a finding with the first few names as examples."""
        examples = tuple(name for name, _ in zip(names, range(MOST_EXAMPLES), strict=False))
        return cls(kind=kind, message=message, count=count, examples=examples)

    def __str__(self) -> str:
        return f"{self.message}: {', '.join(map(repr, self.examples))}"


def similar_labels(labels: Iterable[str]) -> Iterator[Finding]:
    """Yield groups of labels that differ in case, blanks or their form of Unicode alone."""
    groups = defaultdict(set)
    for label in labels:
        groups[" ".join(normalize("NFKC", label).casefold().split())].add(label)
    for group in groups.values():
        if len(group) > 1:
            yield Finding.of(
                FindingKind.SIMILAR_LABELS,
                "these labels are classes of their own, and differ in case, blanks or the form of "
                "Unicode alone",
                sorted(group),
                len(group),
            )
