"""How long trainings may take."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeBudget:
    """How long a training may take over all its attempts.

    Attributes:
        full_s: seconds of a training that is neither stopped nor shortened; None for any time.
        left_s: seconds until the search's deadline.
    """

    full_s: float | None = None
    left_s: float = math.inf
