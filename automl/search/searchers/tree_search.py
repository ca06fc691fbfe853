"""Maximising the acquisition over morphs of morphs: tree search with simulated annealing.

As Auto-Keras (arXiv:1806.10282, sec. 3.3) does it, every evaluated candidate is a root, inner nodes
stay expandable, and a falling temperature moves the choice of what to expand from anything towards
the most promising. Here several nodes are expanded at once, so that the surrogate predicts their
children together; and effort is a number of children, never a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from automl.domain.candidate import Candidate
from automl.search.arrays import Vector
from automl.search.recent import Recent
from automl.search.space import SearchSpace

_BLOCKS_KEPT = 2048  # some 30 kB each


@dataclass(frozen=True, slots=True)
class Effort:
    """Effort of one proposal: how many candidates are looked at.

    Attributes:
        rounds: how often nodes are chosen and expanded.
        parents: nodes expanded in a round.
        children: drawn from each of them.
        samples: candidates that the search space samples, to begin with.
        temperature: of the first round, in units of the surrogate's targets.
        cooling: factor of the temperature from round to round.
        patience: for how many proposals a node shows the same children first.
    """

    rounds: int = 4
    parents: int = 6
    children: int = 4
    samples: int = 8
    temperature: float = 1.0
    cooling: float = 0.5
    patience: int = 8


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of candidates, (m,) each; the higher the better.

    Attributes:
        promise: decides what is expanded.
        value: decides what is returned.
    """

    promise: Vector
    value: Vector


@dataclass(slots=True)
class _Pool:
    """Everything seen for one proposal, each candidate once."""

    candidates: list[Candidate] = field(default_factory=list)
    promise: list[float] = field(default_factory=list)
    identities: set[str] = field(default_factory=set)
    turn: int = 0
    visits: dict[int, int] = field(default_factory=dict)  # how often expanded, by place

    def add(self, candidates: Sequence[Candidate], promise: Sequence[float]) -> None:
        self.candidates += candidates
        self.promise += promise
        self.identities.update(candidate.identity for candidate in candidates)


class TreeSearch:
    """Looks for the candidate with the highest value.

    A node's children are a fixed sequence, drawn with a generator that is seeded by the node, of
    which some are looked at each time. So a later proposal meets many that have been seen before,
    with their features computed.

    Args:
        space: gives the neighbours.
        effort: how far to look.
    """

    _BLOCKS = 16  # a node's children are drawn from this many blocks before they repeat

    def __init__(self, space: SearchSpace, effort: Effort) -> None:
        self._space, self._effort = space, effort
        self._children = Recent[tuple[str, int | None, str, int], list[Candidate]](_BLOCKS_KEPT)

    def best(
        self,
        roots: Sequence[tuple[Candidate, float]],
        samples: Sequence[Candidate],
        excluded: set[str],
        score: Callable[[Sequence[Candidate]], Scores],
        rng: np.random.Generator,
    ) -> Candidate | None:
        """Return the candidate of the highest value that is not excluded; None if all are.

        Args:
            roots: evaluated candidates with their promise; their morphs inherit from them.
            samples: further candidates to consider and to expand.
            excluded: identities that must not be returned.
            score: rates candidates.
            rng: the only source of randomness.
        """
        pool = _Pool(turn=len(excluded))
        pool.add([root for root, _ in roots], [promise for _, promise in roots])
        best: tuple[float, Candidate] | None = None
        news, temperature = list(samples), self._effort.temperature
        for round_ in range(self._effort.rounds + 1):
            news = _fresh(news, pool.identities)
            if news:
                scores = score(news)
                pool.add(news, scores.promise.tolist())
                found = _highest(news, scores.value, excluded)
                if found is not None and (best is None or found[0] > best[0]):
                    best = found
            if round_ < self._effort.rounds:
                news = self._expand(pool, temperature, rng)
                temperature *= self._effort.cooling
        return None if best is None else best[1]

    def _expand(self, pool: _Pool, temperature: float, rng: np.random.Generator) -> list[Candidate]:
        """Return the children of nodes drawn without replacement, in proportion to exp(promise/T).

        Adding Gumbel noise and taking the largest is such a draw (arXiv:1903.06059).
        """
        if not pool.candidates:
            return []
        keys = np.array(pool.promise) / temperature + rng.gumbel(size=len(pool.promise))
        chosen = np.argsort(-keys, kind="stable")[: self._effort.parents]
        children: list[Candidate] = []
        for place in chosen.tolist():
            first = (pool.turn + place) // self._effort.patience
            children += self._block(pool.candidates[place], first + pool.visits.get(place, 0))
            pool.visits[place] = pool.visits.get(place, 0) + 1
        return children

    def _block(self, node: Candidate, number: int) -> list[Candidate]:
        block = number % self._BLOCKS
        # different moves may lead to one identity, and children repeat their parent's moves
        key = node.identity, node.parent, str(node.moves), block
        return self._children.get(key, lambda: self._draw(node, block))

    def _draw(self, node: Candidate, block: int) -> list[Candidate]:
        seed = hashlib.sha256(f"{node.identity} {block}".encode()).digest()
        rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
        return [self._space.mutate(node, rng) for _ in range(self._effort.children)]


def _fresh(candidates: Sequence[Candidate], known: set[str]) -> list[Candidate]:
    """Return those that are not known, each once, in order."""
    found = {one.identity: one for one in reversed(candidates) if one.identity not in known}
    return list(reversed(found.values()))


def _highest(
    candidates: Sequence[Candidate], values: Vector, excluded: set[str]
) -> tuple[float, Candidate] | None:
    for place in np.argsort(-values, kind="stable").tolist():
        if candidates[place].identity not in excluded:
            return float(values[place]), candidates[place]
    return None
