"""What the tests of searchers share: a small search space, its trials, and random graphs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from automl.domain.candidate import Candidate
from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.search.history import History
from automl.search.space import Description, LabelledGraph, origin

HERE, ELSEWHERE = "here", "elsewhere"


@dataclass(frozen=True, slots=True)
class Words:
    """Chains of layers written as words, one letter a layer; a capital also skips the one before.

    Attributes:
        letters: the layers there are.
        longest: the largest number of layers.
        rates: the values of the one training gene.
        first: the seeds.
    """

    letters: str = "abC"
    longest: int = 3
    rates: tuple[float, ...] = (0.5,)
    first: tuple[str, ...] = ("a", "bb")

    @property
    def size(self) -> int:
        """How many candidates there are."""
        words: int = sum(len(self.letters) ** length for length in range(1, self.longest + 1))
        return words * len(self.rates)

    def seeds(self) -> Sequence[Candidate]:
        return [candidate(word, self.rates[0]) for word in self.first]

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        if parents:
            return self.mutate(origin(parents[int(rng.integers(len(parents)))]), rng)
        return candidate(self.word(rng), float(rng.choice(self.rates)))

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a word with one letter more, less or changed, and any rate."""
        word, place = candidate.genotype, int(rng.integers(len(candidate.genotype)))
        letter = self.letters[int(rng.integers(len(self.letters)))]
        changed = [word[:place] + letter + word[place + 1 :]]
        if len(word) > 1:
            changed.append(word[:place] + word[place + 1 :])
        if len(word) < self.longest:
            changed.append(word[:place] + letter + word[place:])
        chosen = changed[int(rng.integers(len(changed)))]
        inherited = () if candidate.parent is None else ({"to": chosen},)
        return Candidate(
            genotype=chosen,
            hyperparameters={"rate": float(rng.choice(self.rates))},
            parent=candidate.parent,
            moves=(*candidate.moves, *inherited),
        )

    def contains(self, candidate: Candidate) -> bool:
        return set(candidate.genotype) <= set(self.letters)

    def describe(self, candidate: Candidate) -> Description:
        word = candidate.genotype
        inputs = [
            (index - 1, index - 2) if letter.isupper() and index > 1 else (index - 1,)
            for index, letter in enumerate(word, 1)
        ]
        graph = LabelledGraph(
            labels=("input", *word.lower(), "output"),
            inputs=((), *inputs, (len(word),)),
            sizes=(0.0, *(float(ord(letter) % 4) for letter in word.lower()), 0.0),
        )
        rate = candidate.hyperparameters["rate"]
        return Description(graph, (rate,), {"layers": len(word)}, spent=float(len(word)))

    def word(self, rng: np.random.Generator) -> str:
        """Return a random word; every length is as likely."""
        length = int(rng.integers(1, self.longest + 1))
        return "".join(rng.choice(list(self.letters), length))

    def draws(self, count: int, rng: np.random.Generator) -> list[Candidate]:
        """Return different random candidates."""
        found: dict[str, Candidate] = {}
        while len(found) < count:
            one = candidate(self.word(rng), float(rng.choice(self.rates)))
            found.setdefault(one.identity, one)
        return list(found.values())


def candidate(word: str, rate: float = 0.5) -> Candidate:
    return Candidate(genotype=word, hyperparameters={"rate": rate})


def loss_of(candidate: Candidate) -> float:
    """A loss that the surrogate can learn: b helps, a harms, and the best rate is 0.5.

    It is a multiple of 1/1024, so that sums with whole numbers and products with powers of two are
    exact.
    """
    word = candidate.genotype.lower()
    quality = word.count("b") - word.count("a") - 0.3 * len(word)
    return round(1024 * (1 - 0.1 * quality + abs(candidate.hyperparameters["rate"] - 0.5))) / 1024


def trial(
    number: int,
    candidate: Candidate,
    loss: float | None = None,
    outcome: Outcome | None = Outcome.COMPLETED,
    snapshot: str = HERE,
    error: float | None = None,
) -> Trial:
    """Return a trial of this candidate; it is unfinished if it has no outcome."""
    return Trial(
        number=number,
        run="run",
        generation=0,
        snapshot=snapshot,
        state=TrialState.PROPOSED if outcome is None else TrialState.FINISHED,
        candidate=candidate,
        outcome=outcome,
        finished_in=-1 if outcome is None else number,
        measurement=Measurement(
            loss=loss, error=error, weights=None if loss is None else f"weights-{number}"
        ),
    )


def measured(candidates: Iterable[Candidate], first: int = 0, snapshot: str = HERE) -> list[Trial]:
    """Return completed trials, numbered from `first`, with the losses of `loss_of`."""
    return [
        trial(number, one, loss_of(one), snapshot=snapshot)
        for number, one in enumerate(candidates, first)
    ]


def history_of(trials: Iterable[Trial]) -> History:
    history = History(HERE)
    for one in trials:
        history.add(one)
    return history


@st.composite
def graphs(draw: st.DrawFn, most: int = 7) -> LabelledGraph:
    """Labelled graphs in topological order, of at most `most` nodes."""
    count = draw(st.integers(1, most))
    labels = draw(st.lists(st.sampled_from("xyz"), min_size=count, max_size=count))
    inputs = [
        tuple(draw(st.lists(st.integers(0, index - 1), unique=True, max_size=3))) if index else ()
        for index in range(count)
    ]
    sizes = draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    return LabelledGraph(tuple(labels), tuple(inputs), tuple(size / 4 for size in sizes))


@dataclass(frozen=True, slots=True)
class FewCandidates:
    """A search space so small that workers meet in it, and that comes to an end.

    Attributes:
        size: how many candidates there are.
    """

    size: int

    def seeds(self) -> Sequence[Candidate]:
        return [self._candidate(0), self._candidate(1)]

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        return self._candidate(int(rng.integers(self.size)))

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        return self._candidate(int(rng.integers(self.size)))

    def contains(self, candidate: Candidate) -> bool:
        return True

    def describe(self, candidate: Candidate) -> Description:
        return Description(LabelledGraph((candidate.genotype,), ((),)))

    def _candidate(self, index: int) -> Candidate:
        return Candidate(genotype=str(index), hyperparameters={})
