"""A candidate: what a searcher proposes and a trainer evaluates."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict


class Candidate(BaseModel):
    """An architecture with its training genes, and where its weights come from.

    The search space alone knows what `genotype` and `moves` mean; everything else stores, hashes
    and compares them.

    Attributes:
        genotype: canonical, versioned JSON text of the architecture.
        hyperparameters: training genes by name, such as `learning_rate`.
        parent: number of the trial whose weights are inherited; None for fresh weights.
        moves: the moves that lead from the parent's genotype to this one, oldest first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    genotype: str
    hyperparameters: dict[str, float]
    parent: int | None = None
    moves: tuple[dict[str, Any], ...] = ()

    @cached_property  # every proposal compares it with all others'
    def identity(self) -> str:
        """Hash of genotype and training genes: equal for duplicates."""
        text = json.dumps([self.genotype, self.hyperparameters], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
