"""Results of long benchmarks: one JSON line for each finished unit, so that they can be resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the documents; a last line that a killed run left incomplete is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    if len(complete) < len(data):
        os.truncate(path, len(complete))
    return [json.loads(line) for line in complete.splitlines()]


def append_line(path: Path, document: Mapping[str, Any]) -> None:
    """Add a document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(document) + "\n")
