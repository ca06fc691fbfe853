"""YAML without surprises: a text becomes plain values, and a list of what is wrong with it.

Nothing in a text makes reading raise, or take long: its parts, its depth and what its aliases stand
for are bounded before anything is built, and no tag runs code.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from automl.domain.plain import shown_key
from automl.errors import Problem

MOST_PARTS = 5000  # values and keys, what aliases stand for included
MOST_DEPTH = 20
_MOST_DIGITS = 60  # of a number; what is longer is a text
_PREFIX = "tag:yaml.org,2002:"
_SCALARS = {f"{_PREFIX}{name}": name for name in ("null", "bool", "int", "float", "str")}
_AS_TEXT = {f"{_PREFIX}merge", f"{_PREFIX}value"}  # `<<` and `=`
_COLLECTIONS = {"mapping": f"{_PREFIX}map", "sequence": f"{_PREFIX}seq"}
_MADE = yaml.constructor.SafeConstructor()
_RESOLVER = yaml.resolver.Resolver()
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class PlainYaml:
    """Content of a text.

    Attributes:
        document: mappings with keys of text, lists, texts, numbers, truth values and None; what is
            wrong is left out, and None stands for a text that cannot be read at all.
        problems: what is wrong, each with its key path.
    """

    document: object
    problems: tuple[Problem, ...] = ()


class _StopReadingError(Exception):
    """The rest of the text is not read; the problem says why."""


@dataclass(slots=True)
class _Part:
    """A mapping or a list that is being read, or what an anchor stands for."""

    path: str
    value: Any
    anchor: str | None = None
    parts: int = 1
    key: object = _NOTHING
    seen: set[Hashable] = field(default_factory=set)


def read_yaml(text: str) -> PlainYaml:
    """Return what a text holds; of several documents the first one counts."""
    reader = _Reader()
    try:
        reader.read(text)
    except yaml.YAMLError as error:
        reader.refuse("", f"it is not valid YAML: {' '.join(str(error).split())}")
        return PlainYaml(None, tuple(reader.problems))
    except (_StopReadingError, UnicodeError) as error:
        reader.refuse("", str(error))
        return PlainYaml(None, tuple(reader.problems))
    return PlainYaml(reader.document, tuple(reader.problems))


class _Reader:
    """Builds the document from the parser's events.

    Attributes:
        document: what has been read.
        problems: what is wrong with it.
    """

    def __init__(self) -> None:
        self.document: object = None
        self.problems: list[Problem] = []
        self._open: list[_Part] = []
        self._anchors: dict[str, _Part] = {}
        self._parts = 0

    def refuse(self, path: str, message: str) -> None:
        """Remember a problem."""
        self.problems.append(Problem(path, message))

    def read(self, text: str) -> None:
        """Read the first document.

        Raises:
            YAMLError: it is not YAML.
            _StopReadingError: it is too large.
        """
        documents = 0
        events: Iterator[yaml.Event] = yaml.parse(text, yaml.CSafeLoader)
        for event in events:
            match event:
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        self.refuse("", "it holds several documents; keep one, without `---`")
                        return
                case yaml.AliasEvent():
                    self._alias(event)
                case yaml.ScalarEvent():
                    self._count(1)
                    value = self._scalar(event)
                    self._remember(event.anchor, _Part(self._path(), value))
                    self._add(value)
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._begin(event)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._end()

    def _path(self) -> str:
        """Return the key path of the value that comes next."""
        if not self._open:
            return ""
        top = self._open[-1]
        step = top.key if isinstance(top.value, dict) else len(top.value)
        if step is _NOTHING or not isinstance(step, str | int):
            return top.path
        return f"{top.path}.{shown_key(step)}" if top.path else shown_key(step)

    def _count(self, parts: int) -> None:
        self._parts += parts
        if self._open:
            self._open[-1].parts += parts
        if self._parts > MOST_PARTS:
            raise _StopReadingError(
                f"it has more than {MOST_PARTS} keys and values, repetitions by aliases included"
            )

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        self._count(1)
        if len(self._open) >= MOST_DEPTH:
            raise _StopReadingError(f"it is nested deeper than {MOST_DEPTH} levels")
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        kind = "mapping" if is_mapping else "sequence"
        if event.tag not in (None, "!", _COLLECTIONS[kind]):
            self.refuse(self._path(), f"the tag {event.tag[:80]!r} means nothing here")
        part = _Part(self._path(), {} if is_mapping else [], event.anchor)
        self._remember(event.anchor, part)
        self._open.append(part)

    def _end(self) -> None:
        done = self._open.pop()
        if self._open:
            self._open[-1].parts += done.parts - 1
        self._add(done.value)

    def _remember(self, anchor: str | None, part: _Part) -> None:
        if anchor is not None:
            self._anchors[anchor] = part

    def _alias(self, event: yaml.AliasEvent) -> None:
        anchor = event.anchor or ""
        part = self._anchors.get(anchor)
        if part is None or any(each.anchor == anchor for each in self._open):
            why = "stands for nothing" if part is None else "stands for what holds it"
            self.refuse(self._path(), f"the alias *{anchor[:80]} {why}")
            self._add(_NOTHING)
            return
        self._count(part.parts)
        self._add(part.value)

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        """Return the value of a scalar; what is none is told, and left out."""
        text, tag = event.value, _tag(event)
        if tag == f"{_PREFIX}timestamp":
            self.refuse(self._path(), f"{text!r} is a date in YAML; put it into quotes")
            return _NOTHING
        if tag in _AS_TEXT:
            return text
        if tag not in _SCALARS:
            self.refuse(self._path(), f"the tag {tag[:80]!r} means nothing here")
            return _NOTHING
        return self._made(_SCALARS[tag], text)

    def _made(self, kind: str, text: str) -> object:
        if kind == "str":
            return text
        try:
            if len(text) > _MOST_DIGITS:
                raise ValueError(text)  # noqa: TRY301 - told with the others
            node = yaml.ScalarNode(f"{_PREFIX}{kind}", text)
            return getattr(_MADE, f"construct_yaml_{kind}")(node)
        except (ValueError, LookupError, OverflowError):
            self.refuse(self._path(), f"{text[:80]!r} cannot be read as {kind}")
            return _NOTHING

    def _add(self, value: object) -> None:
        """Put a value where it belongs: the document, a list's next entry, a key or its value."""
        if not self._open:
            self.document = None if value is _NOTHING else value
            return
        top = self._open[-1]
        if isinstance(top.value, list):
            if value is not _NOTHING:
                top.value.append(value)
        elif top.key is _NOTHING:
            top.key = self._key(top, value)
        else:
            if isinstance(top.key, str) and value is not _NOTHING:
                top.value[top.key] = value
            top.key = _NOTHING

    def _key(self, top: _Part, value: object) -> object:
        """Return a key of a mapping; None stands for one that is refused with its value."""
        if not isinstance(value, str):
            if value is not _NOTHING:
                shown = "a collection" if isinstance(value, dict | list) else repr(value)
                self.refuse(top.path, f"the key {shown} is no text; put it into quotes")
            return None
        path = f"{top.path}.{shown_key(value)}" if top.path else shown_key(value)
        if value == "<<":
            self.refuse(top.path, "merge keys (`<<`) are not read; write the keys out")
            return None
        if value in top.seen:
            self.refuse(path, f"the key {value[:80]!r} is written twice")
            return None
        top.seen.add(value)
        return value


def _tag(event: yaml.ScalarEvent) -> str:
    """Return the tag of a scalar, which of a plain one its form decides."""
    if event.tag is not None and event.tag != "!":
        return event.tag
    is_plain = event.implicit[0] and event.tag is None
    if not is_plain or len(event.value) > _MOST_DIGITS:
        return f"{_PREFIX}str"
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, event.value, (True, False))  # type: ignore[no-untyped-call]
    return tag
