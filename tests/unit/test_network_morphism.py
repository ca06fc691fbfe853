from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from automl.domain.candidate import Candidate
from automl.errors import DamagedDataError
from automl.morphism.architecture import Architecture
from automl.morphism.costs import training_work
from automl.morphism.moves import GROWING
from automl.morphism.pretrained import lite0
from automl.search.surrogate.surrogate import Surrogate
from automl.tracks.image.space import (
    GENES,
    GENTLE_GROWTH,
    JUDGED_EPOCHS,
    MAX_MOVES,
    MOST_GROWTH,
    REGULARISATION,
    Allowance,
    NetworkMorphismSpace,
)
from tests.spaces import history_of, trial


@pytest.fixture(scope="module")
def space() -> NetworkMorphismSpace:
    return NetworkMorphismSpace(16, 10)


def without(candidate: Candidate, gene: str) -> Candidate:
    genes = {name: value for name, value in candidate.hyperparameters.items() if name != gene}
    return candidate.model_copy(update={"hyperparameters": genes})


def test_seeds_drop_as_their_own_nodes_do(space: NetworkMorphismSpace) -> None:
    rates = {
        Architecture.parse(seed.genotype).dropout: seed.hyperparameters["dropout"]
        for seed in space.seeds()
    }

    assert rates == {None: 0.0, 0.25: 0.25}


def test_a_candidate_of_an_older_version_drops_as_its_own_nodes_do(
    space: NetworkMorphismSpace,
) -> None:
    for seed in space.seeds():
        assert space.describe(without(seed, "dropout")) == space.describe(seed)
        child = space.mutate(without(seed, "dropout"), np.random.default_rng(0))
        assert child == space.mutate(seed, np.random.default_rng(0))


def test_a_candidate_without_another_gene_is_damaged(space: NetworkMorphismSpace) -> None:
    with pytest.raises(DamagedDataError, match="weight_decay"):
        space.describe(without(space.seeds()[0], "weight_decay"))


def test_every_gene_is_perturbed_within_its_bounds(space: NetworkMorphismSpace) -> None:
    rng, candidate = np.random.default_rng(1), space.seeds()[0]
    values: dict[str, set[float]] = {name: set() for name in GENES}
    for _ in range(600):
        candidate = candidate.model_copy(
            update={"hyperparameters": space.mutate(candidate, rng).hyperparameters}
        )
        for name, value in candidate.hyperparameters.items():
            values[name].add(value)

    for name, gene in GENES.items():
        assert len(values[name]) > 50
        assert gene.low <= min(values[name]) <= max(values[name]) <= gene.high


def regularisation(candidate: Candidate) -> tuple[float, ...]:
    return tuple(candidate.hyperparameters[name] for name in sorted(REGULARISATION))


@pytest.mark.parametrize("epochs", [None, JUDGED_EPOCHS, 30])
def test_one_child_in_four_tries_other_regularisation(epochs: int | None) -> None:
    space = NetworkMorphismSpace(16, 10, allowance=Allowance(epochs))
    rng, parent = np.random.default_rng(0), space.seeds()[-1]

    children = [space.mutate(parent, rng) for _ in range(200)]

    changed = [child for child in children if regularisation(child) != regularisation(parent)]
    assert 30 <= len(changed) <= 70
    rates = {child.hyperparameters["learning_rate"] for child in children}
    assert len(rates) > 150


def test_short_trainings_do_not_decide_regularisation() -> None:
    space = NetworkMorphismSpace(16, 10, allowance=Allowance(JUDGED_EPOCHS - 1))
    rng, parent = np.random.default_rng(0), space.seeds()[-1]
    changed = {**parent.hyperparameters, **dict.fromkeys(REGULARISATION, 0.005)}
    other = parent.model_copy(update={"hyperparameters": changed})

    for _ in range(50):
        assert regularisation(space.mutate(parent, rng)) == regularisation(parent)
        assert regularisation(space.mutate(other, rng)) == (0.005,) * 3
    assert {regularisation(space.sample([], rng)) for _ in range(30)} <= {
        regularisation(seed) for seed in space.seeds()
    }
    assert {"weight_decay", "augmentation", "dropout"} == REGULARISATION


def test_the_most_promising_seeds_are_the_first_ones() -> None:
    pretrained = lite0(32, 10).architecture
    every = NetworkMorphismSpace(32, 10, None, pretrained).seeds()
    two = NetworkMorphismSpace(32, 10, None, pretrained, Allowance(is_short_budget=True)).seeds()

    assert len(every) == 4
    assert two == every[:2]
    assert two[0].genotype == pretrained.genotype()
    assert [seed.hyperparameters["augmentation"] for seed in every] == [0.5, 0.2, 0.2, 0.2]


def test_a_move_makes_a_training_half_again_as_costly_at_most() -> None:
    space, rng = NetworkMorphismSpace(32, 10), np.random.default_rng(0)
    parent = space.seeds()[0]

    def work(candidate: Candidate) -> float:
        spent = space.describe(candidate).spent
        assert spent is not None
        return spent

    grown = [work(space.mutate(parent, rng)) / work(parent) for _ in range(100)]

    assert max(grown) <= 1.5**MAX_MOVES
    assert max(grown) > 1.2
    assert min(grown) < 1


def test_a_surrogate_learns_from_morphs() -> None:
    space, rng = NetworkMorphismSpace(image_size=8, classes=3), np.random.default_rng(0)
    found: list[Candidate] = list(space.seeds())
    while len(found) < 90:
        found.append(space.mutate(found[int(rng.integers(len(found)))], rng))

    def loss(one: Candidate) -> float:
        described = space.describe(one)
        return float(abs(np.log2(described.costs["parameters"]) - 16)) + 0.5 * described.genes[0]

    order = rng.permutation(90).tolist()
    known, new = [found[n] for n in order[:50]], [found[n] for n in order[50:]]
    history = history_of(trial(n, one, loss(one)) for n, one in enumerate(known))

    prediction = Surrogate(space).fit(history).predict(new)

    assert spearmanr(prediction.mean, [loss(one) for one in new]).statistic > 0.7


def test_children_of_a_hurried_search_are_a_small_step_away() -> None:
    usual = NetworkMorphismSpace(16, 10)
    hurried = NetworkMorphismSpace(16, 10, allowance=Allowance(is_short_budget=True))
    rng, parent = np.random.default_rng(0), usual.seeds()[0].model_copy(update={"parent": 0})
    before = work(parent)

    far = [usual.mutate(parent, rng) for _ in range(50)]
    near = [hurried.mutate(parent, rng) for _ in range(50)]

    assert all(len(child.moves) == 1 for child in near)
    assert {child.moves[0]["kind"] for child in near} <= {kind.value for kind in GROWING}
    assert 1 < max(work(child) for child in near) / before <= GENTLE_GROWTH
    assert GENTLE_GROWTH < max(work(child) for child in far) / before <= MOST_GROWTH**MAX_MOVES
    assert {len(child.moves) for child in far} == {1, 2}


def work(candidate: Candidate) -> int:
    return training_work(Architecture.from_genotype(candidate.genotype))
