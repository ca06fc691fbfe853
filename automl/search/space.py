"""Search spaces, as far as searchers know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from automl.domain.candidate import Candidate
from automl.domain.trial import Trial
from automl.errors import SearchError


@dataclass(frozen=True, slots=True)
class LabelledGraph:
    """A directed acyclic graph in topological order, as the kernel sees a candidate.

    Attributes:
        labels: what each node is, apart from its size.
        inputs: for each node, the indices of the earlier nodes that it reads, in order.
        sizes: how large each node is, on a scale where equal differences matter equally, such as
            the binary logarithm of a width; 0 where it has no size. Empty: no node has one.
        slots: the place of each node if every candidate has the same places; empty where graphs
            differ in shape.
    """

    labels: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]
    sizes: tuple[float, ...] = ()
    slots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """Description of a candidate that a surrogate may learn from.

    Attributes:
        graph: the architecture.
        genes: the training genes, each scaled to about the unit range, in a fixed order.
        costs: positive quantities that are known before training, such as parameters or MACs, by
            name; the same names for all candidates of a space.
        spent: predicted cost of evaluating the candidate, positive, in any unit that is the same
            for all; None if unknown.
    """

    graph: LabelledGraph
    genes: tuple[float, ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)
    spent: float | None = None


class SearchSpace(Protocol):
    """The candidates there are, and how to get from one to the next.

    No I/O and no randomness of its own. Candidates beyond its limits are never returned.
    """

    def seeds(self) -> Sequence[Candidate]:
        """Return the candidates that every search evaluates first, in order; there may be none."""

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        """Return what random search would evaluate next.

        Args:
            parents: finished trials that may lend weights, by number; may be empty.
            rng: the only source of randomness.
        """

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a random neighbour.

        A candidate with a `parent` gives a child of the same parent with further moves, so that
        mutating `origin(trial)` again and again leads away from an evaluated candidate.
        """

    def contains(self, candidate: Candidate) -> bool:
        """Return whether a candidate of another snapshot could be evaluated on this one."""

    def describe(self, candidate: Candidate) -> Description:
        """Return what a surrogate may learn from."""


def origin(trial: Trial) -> Candidate:
    """Return a trial's candidate as its own parent: what is mutated inherits its weights, if any.

    Raises:
        SearchError: the trial has no candidate.
    """
    if trial.candidate is None:
        raise SearchError(f"Trial {trial.number} has no candidate to start from.")
    parent = None if trial.measurement.weights is None else trial.number
    return trial.candidate.model_copy(update={"parent": parent, "moves": ()})
