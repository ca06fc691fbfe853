from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.domain.candidate import Candidate
from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.errors import SearchSpaceExhaustedError
from automl.search.history import History
from automl.search.searchers.evolution import RegularizedEvolution
from automl.search.space import Description, LabelledGraph

SNAPSHOT = "abc"


class Words:
    """Words of digits; a neighbour has one digit more, so that a child names its parent."""

    def __init__(self, seeds: Sequence[str] = (), digits: int = 10) -> None:
        self._seeds = [word(seed) for seed in seeds]
        self._digits = digits

    def seeds(self) -> Sequence[Candidate]:
        return self._seeds

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        return word(f"sampled-{rng.integers(10**9)}-")

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        text = f"{candidate.genotype}{rng.integers(self._digits)}"
        return Candidate(genotype=text, hyperparameters={}, parent=candidate.parent)

    def contains(self, candidate: Candidate) -> bool:
        return True

    def describe(self, candidate: Candidate) -> Description:
        return Description(LabelledGraph((candidate.genotype,), ((),)))


def word(text: str) -> Candidate:
    return Candidate(genotype=text, hyperparameters={})


def trial(number: int, genotype: str, loss: float | None, weights: str | None = None) -> Trial:
    return Trial(
        number=number,
        run="run-1",
        generation=1,
        snapshot=SNAPSHOT,
        state=TrialState.FINISHED,
        strategy="random",
        candidate=word(genotype),
        outcome=Outcome.FAILED if loss is None else Outcome.COMPLETED,
        measurement=Measurement(loss=loss, weights=weights),
    )


def history(losses: Sequence[float | None], weights: str | None = None) -> History:
    """Return finished trials named a, b, c…; no name is the beginning of another."""
    found = History(SNAPSHOT)
    for number, loss in enumerate(losses):
        found.add(trial(number, f"{chr(ord('a') + number)}:", loss, weights))
    return found


def parents(searcher: RegularizedEvolution, known: History, draws: int = 200) -> list[str]:
    """Return the parents that many different generators choose."""
    rngs = (np.random.default_rng([7, draw]) for draw in range(draws))
    return [searcher.propose(known, rng).candidate.genotype[:2] for rng in rngs]


def test_the_seeds_come_first_then_random_search_fills_the_population() -> None:
    searcher, known = RegularizedEvolution(Words(["s:", "t:"]), population=4), History(SNAPSHOT)
    proposed = []
    for number in range(6):
        suggestion = searcher.propose(known, np.random.default_rng([1, number]))
        proposed.append((suggestion.strategy, suggestion.candidate.genotype.partition("-")[0]))
        known.add(trial(number, suggestion.candidate.genotype, loss=float(number)))

    assert proposed[:2] == [("random", "s:"), ("random", "t:")]
    assert proposed[2:4] == [("random", "sampled")] * 2
    assert {strategy for strategy, _ in proposed[4:]} == {"evolution"}


def test_a_good_trial_dies_of_old_age() -> None:
    searcher = RegularizedEvolution(Words(), population=3, sample=30)

    assert set(parents(searcher, history([0.1, 0.5, 0.4]))) == {"a:"}
    assert set(parents(searcher, history([0.1, 0.5, 0.4, 0.6]))) == {"c:"}


def test_the_population_is_ordered_by_the_end_of_trials_not_by_their_numbers() -> None:
    known = History(SNAPSHOT)
    for number in (2, 0, 1):
        known.add(trial(number, f"{number}:", loss=1.0))
    searcher = RegularizedEvolution(Words(), population=2)

    assert [one.number for one in searcher.population(known)] == [0, 1]


def test_trials_without_a_loss_are_not_in_the_population() -> None:
    searcher = RegularizedEvolution(Words(), population=2, sample=30)
    known = history([0.3, None, 0.2, None])

    assert [one.number for one in searcher.population(known)] == [0, 2]
    assert set(parents(searcher, known)) == {"c:"}


def test_the_tournament_prefers_the_better_as_often_as_its_size_says() -> None:
    searcher = RegularizedEvolution(Words(), population=4, sample=2)
    draws = 2000
    chosen = parents(searcher, history([0.4, 0.1, 0.2, 0.3]), draws)

    for place, name in enumerate(["b:", "c:", "d:", "a:"]):  # from the best to the worst
        expected = ((4 - place) ** 2 - (3 - place) ** 2) / 16  # two draws with replacement
        assert chosen.count(name) / draws == pytest.approx(expected, abs=0.04)


def test_a_tournament_of_one_does_not_select() -> None:
    searcher = RegularizedEvolution(Words(), population=3, sample=1)

    chosen = parents(searcher, history([0.1, 0.5, 0.9]), draws=900)

    assert all(chosen.count(name) == pytest.approx(300, abs=60) for name in ("a:", "b:", "c:"))


def test_a_child_inherits_its_parents_weights_if_there_are_any() -> None:
    searcher, rng = RegularizedEvolution(Words(), population=2, sample=30), np.random.default_rng

    assert searcher.propose(history([0.2, 0.1], "w"), rng(0)).candidate.parent == 1
    assert searcher.propose(history([0.2, 0.1]), rng(0)).candidate.parent is None


def test_what_is_pending_is_not_proposed_again() -> None:
    searcher = RegularizedEvolution(Words(digits=2), population=1)
    known = history([0.1])
    known.add(
        Trial(
            number=1,
            run="run-1",
            generation=1,
            snapshot=SNAPSHOT,
            state=TrialState.PROPOSED,
            candidate=word("a:0"),
        )
    )

    proposed = {
        searcher.propose(known, np.random.default_rng(seed)).candidate.genotype
        for seed in range(20)
    }

    assert proposed == {"a:1"}


def test_an_exhausted_neighbourhood_is_reported() -> None:
    searcher, known = RegularizedEvolution(Words(digits=1), population=1), History(SNAPSHOT)
    known.add(trial(0, "a:0", loss=0.2))
    known.add(trial(1, "a:", loss=0.1))

    with pytest.raises(
        SearchSpaceExhaustedError, match=r"1 youngest trials .* not among the 2 known"
    ):
        searcher.propose(known, np.random.default_rng(0))


@given(
    losses=st.lists(st.none() | st.floats(-1, 1), min_size=1, max_size=25),
    population=st.integers(1, 8),
    sample=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_proposals_depend_on_history_and_generator_alone(
    losses: list[float | None], population: int, sample: int, seed: int
) -> None:
    used = RegularizedEvolution(Words(), population, sample)
    used.propose(history(losses[:-1]), np.random.default_rng(seed + 1))
    known = history(losses)

    suggestion = used.propose(known, np.random.default_rng(seed))
    fresh = RegularizedEvolution(Words(), population, sample)

    assert suggestion == fresh.propose(history(losses), np.random.default_rng(seed))
    assert suggestion.candidate.identity not in known.identities
    assert known == history(losses)
