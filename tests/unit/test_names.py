"""Names and docstrings: each name means one thing, each docstring names its thing."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted([*ROOT.glob("automl/**/*.py"), *ROOT.glob("plugins/**/*.py")])


QUESTIONS = ("What", "How", "Which", "Where", "Whether", "Why", "When", "Who", "Whose")


def bound_names(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that statements bind, but for those inside other blocks."""
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield statement.name
            case ast.Import() | ast.ImportFrom():
                yield from (name.asname or name.name for name in statement.names)
            case ast.Assign():
                for target in statement.targets:
                    yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def bound_twice(source: str) -> list[str]:
    counts = Counter(bound_names(ast.parse(source).body))
    return [name for name, count in counts.items() if count > 1]


def test_no_name_of_a_module_is_bound_twice() -> None:
    found = {path.relative_to(ROOT): bound_twice(path.read_text()) for path in MODULES}

    assert {path: names for path, names in found.items() if names} == {}
    assert len(found) > 100


def test_a_name_that_is_bound_twice_is_found() -> None:
    source = "from a import b\nC = 1\nC, d = 2, 3\ndef b(): pass\nif C:\n    d = 4\n"

    assert bound_twice(source) == ["b", "C"]


def asking_docstrings(source: str) -> list[str]:
    """Return the docstrings that open with a question word instead of their subject."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, documented))
    found = (ast.get_docstring(node) or "" for node in nodes)
    return [text for text in found if re.split(r"\W", text, maxsplit=1)[0] in QUESTIONS]


def test_docstrings_begin_with_the_thing_that_they_describe() -> None:
    found = {path.relative_to(ROOT): asking_docstrings(path.read_text()) for path in MODULES}

    assert {path: texts for path, texts in found.items() if texts} == {}


def test_a_docstring_that_begins_with_a_question_is_found() -> None:
    source = (
        '"""What it is."""\nclass A:\n    """A thing."""\n    def b(self):\n        """How."""\n'
    )

    assert asking_docstrings(source) == ["What it is.", "How."]
