"""What searchers know of a search space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.trial import Trial


class SearchSpace(Protocol):
    """The candidates there are, and how to get from one to the next. No I/O, no own randomness."""

    def seeds(self) -> Sequence[Candidate]:
        """Return the candidates that every search evaluates first, in order."""

    def vary(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return the candidate's architecture with other training genes and fresh weights."""

    def mutate(self, parent: Trial, rng: np.random.Generator) -> Candidate:
        """Return a neighbour of an evaluated candidate, which inherits its weights if it has any.

        Args:
            parent: a finished trial with a candidate.
            rng: the only source of randomness.
        """
