"""Every name of a module means one thing."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted([*ROOT.glob("automl/**/*.py"), *ROOT.glob("plugins/**/*.py")])


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
