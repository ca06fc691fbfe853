from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from automl.domain.candidate import Candidate
from automl.errors import DamagedDataError
from automl.morphism.architecture import Architecture
from automl.search.network_morphism import GENES, NetworkMorphismSpace
from automl.search.surrogate import Surrogate
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
    for _ in range(200):
        candidate = candidate.model_copy(
            update={"hyperparameters": space.mutate(candidate, rng).hyperparameters}
        )
        for name, value in candidate.hyperparameters.items():
            values[name].add(value)

    for name, gene in GENES.items():
        assert len(values[name]) > 50
        assert gene.low <= min(values[name]) <= max(values[name]) <= gene.high


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
