"""Rooms that serve every track know none: not one word there is an image track's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

AUTOML = Path(__file__).parents[2] / "automl"
ROOMS = ("runs", "publishing", "views", "steps", "storage", "search")
WORDS = re.compile(r"image|pixel|accuracy|Image|Pixel|Accuracy|Architecture")


@pytest.mark.parametrize("room", ROOMS)
def test_no_code_knows_images(room: str) -> None:
    modules = sorted((AUTOML / room).rglob("*.py"))

    found = [
        f"{module.relative_to(AUTOML)}:{number}: {line.strip()}"
        for module in modules
        for number, line in enumerate(module.read_text().splitlines(), start=1)
        if WORDS.search(line)
    ]

    assert modules
    assert found == []


def test_the_second_track_is_small() -> None:
    modules = (AUTOML.parent / "tests" / "numeric").rglob("*.py")

    assert sum(len(module.read_text().splitlines()) for module in modules) <= 310
