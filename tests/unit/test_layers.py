"""The documents list the layers that import-linter holds."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def layers_held() -> list[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    return list(layers)


def layers_listed(text: str) -> list[str]:
    """Return the layers of the fenced block that begins with the topmost one."""
    lines = [line.strip() for line in text.splitlines()]
    first = next(n for n, line in enumerate(lines) if line.startswith("cli | api"))
    last = lines.index("```", first)
    return [line.partition("  ")[0] for line in lines[first:last]]


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_a_document_lists_the_layers_that_are_held(document: str) -> None:
    assert layers_listed((ROOT / document).read_text()) == layers_held()
