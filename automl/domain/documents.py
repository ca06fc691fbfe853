"""The type of what may stand in a JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, Union

JsonValue: TypeAlias = Union[
    "Mapping[str, JsonValue]", "Sequence[JsonValue]", str, int, float, bool, None
]
