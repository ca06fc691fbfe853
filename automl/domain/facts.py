"""What the search space of a run depends on besides its specification, as its opening recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """Facts of a search space, which do not change once a run is open.

    Attributes:
        version: of the search, which rises when the same log would lead to other proposals.
        trial_ms: how long a training takes that is neither stopped nor shortened; None for any
            time.
        recorded: everything that was recorded, by name; the names are the track's.
    """

    version: int
    trial_ms: int | None = None
    recorded: Mapping[str, int | str] = field(default_factory=dict)
