from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from automl.domain.candidate import Candidate
from automl.domain.trial import Measurement, Outcome, Trial, TrialState
from automl.errors import ConfigError, SearchError, SearchSpaceExhaustedError
from automl.morphism.architecture import Architecture
from automl.morphism.moves import Limits, Move, apply_move
from automl.search.history import History
from automl.search.searchers.random import RandomSearcher
from automl.search.space import Description, LabelledGraph, origin
from automl.tracks.image.space import GENES, NetworkMorphismSpace

SPACE = NetworkMorphismSpace(image_size=8, classes=10)
SEARCHER = RandomSearcher(SPACE)


def trial(
    number: int,
    candidate: Candidate,
    outcome: Outcome | None = Outcome.COMPLETED,
    weights: str | None = "weights.safetensors",
) -> Trial:
    return Trial(
        number=number,
        run="run-1",
        generation=1,
        snapshot="abc",
        state=TrialState.PROPOSED if outcome is None else TrialState.FINISHED,
        candidate=candidate,
        outcome=outcome,
        measurement=Measurement(score=0.9, loss=-0.9, weights=weights),
    )


def seed_history(outcome: Outcome | None = Outcome.COMPLETED) -> list[Trial]:
    return [trial(number, seed, outcome) for number, seed in enumerate(SPACE.seeds())]


def propose(
    trials: Sequence[Trial], rng: np.random.Generator, searcher: RandomSearcher = SEARCHER
) -> Candidate:
    history = History("abc")
    for one in trials:
        history.add(one)
    return searcher.propose(history, rng).candidate


def test_seeds_come_first_and_in_order() -> None:
    history: list[Trial] = []
    for number, seed in enumerate(SPACE.seeds()):
        proposal = propose(history, np.random.default_rng(number))
        assert proposal == seed
        assert proposal.parent is None
        history.append(trial(number, proposal, outcome=None))


def test_a_seed_known_from_elsewhere_is_passed_over() -> None:
    history = [trial(7, SPACE.seeds()[0], Outcome.FAILED)]

    assert propose(history, np.random.default_rng(0)) == SPACE.seeds()[1]


def test_children_follow_from_their_parent_by_their_moves() -> None:
    history = seed_history()
    for number in range(3, 23):
        child = propose(history, np.random.default_rng([1, number]))
        assert child.parent is not None
        assert 1 <= len(child.moves) <= 2
        parent = history[child.parent].candidate
        assert parent is not None
        place = Architecture.from_genotype(parent.genotype)
        for document in child.moves:
            place, _ = apply_move(place, Move.from_json(document))
        assert place.genotype() == child.genotype
        assert set(child.hyperparameters) == set(GENES)
        for name, gene in GENES.items():
            assert gene.low <= child.hyperparameters[name] <= gene.high
        assert child.identity not in {t.candidate.identity for t in history if t.candidate}
        history.append(trial(number, child))


def test_the_same_history_and_seed_give_the_same_proposal() -> None:
    history = seed_history()
    first, second, third = (
        propose(history, np.random.default_rng([1, number])) for number in (3, 3, 4)
    )

    assert first == second
    assert first != third
    assert Candidate.model_validate_json(first.model_dump_json()) == first


def test_only_trials_with_a_result_are_parents() -> None:
    history = [
        trial(0, SPACE.seeds()[0], Outcome.FAILED),
        trial(1, SPACE.seeds()[1], Outcome.TIMED_OUT),
        trial(2, SPACE.seeds()[2], outcome=None),
    ]

    parents = {propose(history, np.random.default_rng(i)).parent for i in range(10)}

    assert parents == {1}


def test_without_a_result_seeds_are_varied() -> None:
    history = seed_history(Outcome.FAILED)

    proposal = propose(history, np.random.default_rng(0))

    assert proposal.genotype in {seed.genotype for seed in SPACE.seeds()}
    assert proposal.parent is None
    assert proposal.moves == ()
    assert proposal.identity not in {seed.identity for seed in SPACE.seeds()}


def test_a_parent_without_weights_gives_a_child_with_fresh_ones() -> None:
    history = [trial(n, seed, weights=None) for n, seed in enumerate(SPACE.seeds())]

    proposal = propose(history, np.random.default_rng(0))

    assert proposal.parent is None
    assert proposal.moves == ()
    assert proposal.genotype not in {seed.genotype for seed in SPACE.seeds()}


def test_no_candidate_is_beyond_the_limits() -> None:
    sizes = [Architecture.from_genotype(seed.genotype).parameters for seed in SPACE.seeds()]
    limits = Limits(parameters=min(sizes))
    space = NetworkMorphismSpace(8, 10, limits)
    history = [trial(0, space.seeds()[0])]

    for number in range(1, 12):
        child = propose(history, np.random.default_rng([1, number]), RandomSearcher(space))
        assert limits.allow(Architecture.from_genotype(child.genotype))
        history.append(trial(number, child))
    assert len(space.seeds()) == 1


def test_limits_that_allow_no_seed_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"search for 8 px .* exceeds one") as caught:
        NetworkMorphismSpace(8, 10, Limits(parameters=1))
    assert [problem.path for problem in caught.value.problems] == ["search.limits.parameters"]


def test_a_trial_without_a_candidate_has_no_neighbours() -> None:
    with pytest.raises(SearchError, match="Trial 4 has no candidate"):
        origin(Trial(number=4, run="r", generation=1, snapshot="s"))


class TinySpace:
    """Two candidates and no more."""

    def seeds(self) -> list[Candidate]:
        return [Candidate(genotype="a", hyperparameters={})]

    def sample(self, parents: Sequence[Trial], rng: np.random.Generator) -> Candidate:
        return Candidate(genotype="b", hyperparameters={}, parent=parents[0].number)

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        return Candidate(genotype="b", hyperparameters={}, parent=candidate.parent)

    def contains(self, candidate: Candidate) -> bool:
        return True

    def describe(self, candidate: Candidate) -> Description:
        return Description(LabelledGraph((candidate.genotype,), ((),)))


def test_an_exhausted_space_is_reported_and_nothing_is_proposed_twice() -> None:
    searcher, history = RandomSearcher(TinySpace()), list[Trial]()
    for number in range(2):
        history.append(trial(number, propose(history, np.random.default_rng(number), searcher)))

    with pytest.raises(SearchSpaceExhaustedError, match="not among the 2 known"):
        propose(history, np.random.default_rng(2), searcher)
    assert [t.candidate.genotype for t in history if t.candidate] == ["a", "b"]
