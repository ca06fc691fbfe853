"""Guards of size: what is long has a reason beside it, and steps stay few and short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("automl", "plugins") for path in (REPOSITORY / folder).rglob("*.py")
)
MODULE_LINES, FUNCTION_LINES = 400, 40
STEP_MODULES, STEP_LINES = 20, 2200
MARK = "# long:"  # on the line of `def` or on the one before, followed by the reason


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def long_functions(text: str) -> Iterator[str]:
    """Yield functions of too many lines, docstring included, that give no reason."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assert node.end_lineno is not None
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        beside = (lines[node.lineno - 1], lines[first - 2] if first > 1 else "")
        length = node.end_lineno - node.lineno + 1
        if length > FUNCTION_LINES and not any(_has_reason(line) for line in beside):
            yield f"{node.name}, line {node.lineno}: {length} lines"


def _has_reason(line: str) -> bool:
    return bool(line.partition(MARK)[2].strip())


@pytest.mark.parametrize(
    ("mark", "is_told"),
    [("", True), ("# long:", True), ("# long: one table", False), ("# a comment", True)],
)
@pytest.mark.parametrize("place", ["before", "beside"])
def test_a_long_function_needs_a_reason(mark: str, place: str, *, is_told: bool) -> None:
    body = "    x = 1\n" * FUNCTION_LINES
    beside = f"  {mark}" if place == "beside" else ""
    before = f"{mark}\n" if place == "before" else ""

    assert bool(list(long_functions(f"{before}def f() -> None:{beside}\n{body}"))) == is_told


def test_functions_are_short_or_say_why_not() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}: {function}"
        for path in SOURCES
        for function in long_functions(path.read_text())
    ]

    assert found == []


def test_modules_are_short() -> None:
    long = {str(path): lines for path in SOURCES if (lines := line_count(path)) > MODULE_LINES}

    assert long == {}


def test_steps_are_few_and_short() -> None:
    modules = sorted((REPOSITORY / "automl" / "steps").rglob("*.py"))

    assert len(modules) <= STEP_MODULES
    assert sum(map(line_count, modules)) <= STEP_LINES
