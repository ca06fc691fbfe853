"""Searchers: functions from a history to the next candidate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from automl.domain.candidate import Candidate
from automl.search.history import History


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Candidate to evaluate next, and what chose it.

    Attributes:
        candidate: the candidate.
        strategy: what chose it; a searcher that mixes strategies names the one it used.
        repeats: number of the trial of another snapshot that is measured again; None for a new
            candidate.
    """

    candidate: Candidate
    strategy: str
    repeats: int | None = None


class Searcher(Protocol):
    """Proposes candidates. What it keeps between calls makes it quicker, never different."""

    def propose(self, history: History, rng: np.random.Generator) -> Suggestion:
        """Return the next candidate, never one that the history's snapshot has seen.

        Args:
            history: the comparable trials, failed and unfinished ones included.
            rng: the only source of randomness.

        Raises:
            SearchSpaceExhaustedError: nothing new was found.
        """
