"""Imports between the folders of the repository."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def imported(source: str) -> Iterator[str]:
    """Yield the names of the modules that some source text imports, wherever it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "." * node.level


def strays(folder: str, forbidden: str) -> list[str]:
    """Return which files of a folder import a package, and what of it."""
    return [
        f"{path.relative_to(REPOSITORY)} imports {module}"
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for module in imported(path.read_text())
        if module.partition(".")[0] == forbidden
    ]


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("benchmarks", "tests"),
        *(
            (folder, other)
            for folder in ("automl", "plugins", "dags")
            for other in ("tests", "benchmarks")
        ),
    ],
)
def test_no_folder_imports_what_only_serves_it(folder: str, forbidden: str) -> None:
    assert [*(REPOSITORY / folder).rglob("*.py")]
    assert strays(folder, forbidden) == []


@pytest.mark.parametrize(
    "source",
    [
        "import tests.servers",
        "from tests import servers",
        "from tests.servers import SeaweedServer",
        "def late():\n    import numpy, tests",
    ],
)
def test_an_import_is_found_wherever_it_stands(source: str) -> None:
    assert "tests" in {module.partition(".")[0] for module in imported(source)}
