from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from automl.domain.candidate import Candidate
from automl.search.surrogate.features import (
    COSTS,
    EDIT,
    GENES,
    Distances,
    Encoder,
    Table,
    View,
    distances,
)
from automl.search.surrogate.gaussian_process import condition
from automl.search.surrogate.kernel import NOISE_FLOOR, Kernel, _Objective, fit_kernel
from automl.tracks.image.space import NetworkMorphismSpace
from tests.spaces import Words

POOL, SUBSET = 300, 40


@cache
def morphs() -> Table:
    """Some hundred network morphs of morphs of the seeds."""
    space, rng = NetworkMorphismSpace(image_size=8, classes=3), np.random.default_rng(0)
    found: list[Candidate] = list(space.seeds())
    while len(found) < POOL:
        found.append(space.mutate(found[int(rng.integers(len(found)))], rng))
    encoder = Encoder(space)
    rows = [encoder.encode(one) for one in found]
    landmarks = [rows[place].outline for place in rng.choice(POOL, 12, replace=False)]
    return Table.of(rows, View(landmarks, scale=4.0))


@cache
def words(count: int, seed: int) -> Distances:
    space, rng = Words("abcD", 6, rates=(0.1, 0.5, 0.9)), np.random.default_rng(seed)
    encoder = Encoder(space)
    rows = [encoder.encode(one) for one in space.draws(count, rng)]
    table = Table.of(rows, View([row.outline for row in rows[:4]], scale=2.0))
    return distances(table, table)


def random_kernel(apart: Distances, rng: np.random.Generator) -> Kernel:
    weights = {kind: 10 ** rng.uniform(-2, 1) for kind in apart if kind != GENES}
    lengths = {
        kind: float(np.median(matrix[matrix > 0])) * 10 ** rng.uniform(-2, 2)
        for kind, matrix in apart.items()
    }
    return Kernel(weights, lengths, genes_share=float(rng.random()), noise=0.01)


def standardised(values: np.ndarray) -> np.ndarray:
    return np.asarray((values - values.mean()) / values.std())


@pytest.mark.parametrize("sets", [250, pytest.param(1000, marks=pytest.mark.soak)])
def test_it_is_positive_semidefinite_on_network_morphs(sets: int) -> None:
    apart = distances(morphs(), morphs())
    rng = np.random.default_rng(1)
    for _ in range(sets):
        chosen = rng.choice(POOL, SUBSET, replace=False)
        part = {kind: matrix[np.ix_(chosen, chosen)] for kind, matrix in apart.items()}
        kernel = random_kernel(apart, rng)

        K = kernel(part)  # noqa: N806

        assert np.array_equal(K, K.T)
        assert np.abs(np.diag(K) / kernel.variance - 1).max() < 1e-12
        assert np.linalg.eigvalsh(K)[0] >= -1e-8 * kernel.variance


def test_it_sees_pairs_alike_when_it_is_fitted_and_when_it_predicts() -> None:
    apart = words(20, 0)
    kernel = fit_kernel(apart, standardised(np.arange(20.0) % 7), np.zeros(20))
    whole = kernel(apart)

    for rows, columns in ((slice(0, 13), slice(13, 20)), (slice(13, 20), slice(13, 20))):
        part = {kind: matrix[rows, columns] for kind, matrix in apart.items()}
        assert np.array_equal(kernel(part), whole[rows, columns])


@given(seed=st.integers(0, 2**32 - 1), has_genes=st.booleans(), has_errors=st.booleans())
@settings(max_examples=25)
def test_the_gradient_is_the_slope_of_the_objective(
    seed: int,
    has_genes: bool,  # noqa: FBT001 - drawn
    has_errors: bool,  # noqa: FBT001 - drawn
) -> None:
    rng = np.random.default_rng(seed)
    apart = {k: d / np.median(d[d > 0]) for k, d in words(9, 1).items() if has_genes or k != GENES}
    errors, extra = 10 ** rng.uniform(-3, 0, (2, 9))
    errors *= has_errors
    objective = _Objective(apart, rng.standard_normal(9), errors, extra)
    at = objective.centre + rng.normal(0, 1, len(objective.centre))

    _, gradient = objective(at)

    def value(parameters: np.ndarray) -> float:
        return objective(parameters)[0]

    slope = approx_fprime(at, value, 1e-7)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-4)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_a_step_of_any_length_has_a_value_and_a_slope(seed: int) -> None:
    rng = np.random.default_rng(seed)
    apart = {kind: d / np.median(d[d > 0]) for kind, d in words(9, 1).items()}
    objective = _Objective(apart, rng.standard_normal(9), rng.random(9), rng.random(9))
    at = objective.centre + rng.choice([-1e4, -20.0, 0.0, 20.0, 1e4], len(objective.centre))

    def value(parameters: np.ndarray) -> float:
        return objective(parameters)[0]

    height, gradient = objective(at)

    assert np.isfinite(height)
    slope = approx_fprime(at, value, 1e-3)
    np.testing.assert_allclose(gradient, slope, rtol=1e-2, atol=1e-1)


def test_the_objective_is_the_likelihood_times_the_prior() -> None:
    apart = {kind: d / np.median(d[d > 0]) for kind, d in words(9, 1).items()}
    z, errors = np.random.default_rng(0).standard_normal(9), np.full(9, 0.02)
    objective = _Objective(apart, z, errors, np.full(9, 0.01))
    kernel = objective.kernel(objective.centre)

    def noise(kernel: Kernel) -> np.ndarray:
        return 0.01 + kernel.noises(errors)

    value, _ = objective(objective.centre)

    assert value == pytest.approx(-condition(kernel(apart), noise(kernel), z).log_likelihood)
    assert kernel.noises(errors) == pytest.approx(kernel.noise + 0.2 * errors)
    assert kernel.variance == pytest.approx(1)
    away = objective.centre + np.eye(len(objective.centre))[0]
    kernel = objective.kernel(away)
    density = condition(kernel(apart), noise(kernel), z).log_likelihood
    assert objective(away)[0] == pytest.approx(-density + 0.5)  # one standard deviation away


@pytest.mark.parametrize("kind", [EDIT, COSTS])
def test_what_the_targets_follow_gets_the_most_weight(kind: str) -> None:
    apart = words(60, 2)
    scale = float(np.median(apart[kind][apart[kind] > 0]))
    truth = Kernel({kind: 1.0}, {kind: scale}, 0.0, 0.0)
    K = truth(apart) + 1e-6 * np.eye(60)  # noqa: N806
    z = standardised(np.linalg.cholesky(K) @ np.random.default_rng(3).standard_normal(60))

    kernel = fit_kernel(apart, z, np.zeros(60))

    assert max(kernel.weights, key=lambda one: kernel.weights[one]) == kind
    assert kernel.noise < 0.1


@pytest.mark.parametrize(("rate_matters", "least", "most"), [(True, 0.6, 1.0), (False, 0.0, 0.4)])
def test_genes_count_as_far_as_they_matter(rate_matters: bool, least: float, most: float) -> None:  # noqa: FBT001 - a parameter of the test
    apart = words(60, 2)
    told = apart[GENES] if rate_matters else apart[COSTS]
    z = standardised(told[0])

    share = fit_kernel(apart, z, np.zeros(60)).genes_share

    assert least <= share <= most


def test_noise_is_what_measurements_of_the_same_differ_by() -> None:
    twice = np.tile(np.arange(30), 2)
    apart = {kind: matrix[np.ix_(twice, twice)] for kind, matrix in words(30, 2).items()}
    truth = standardised(words(30, 2)[COSTS][0])
    shaken = np.concatenate([truth, truth + np.random.default_rng(4).normal(0, 0.8, 30)])

    equal = fit_kernel(apart, np.tile(truth, 2), np.zeros(60))
    different = fit_kernel(apart, standardised(shaken), np.zeros(60))

    assert NOISE_FLOOR <= equal.noise < 0.01
    assert different.noise > 0.1


def test_standard_errors_count_as_far_as_measurements_differ_by_them() -> None:
    twice = np.tile(np.arange(40), 2)
    apart = {kind: matrix[np.ix_(twice, twice)] for kind, matrix in words(40, 2).items()}
    truth = np.tile(standardised(words(40, 2)[COSTS][0]), 2)
    rng = np.random.default_rng(5)
    errors = 10 ** rng.uniform(-3, 0, 80)
    own = truth + np.sqrt(errors) * rng.standard_normal(80)

    common = fit_kernel(apart, truth, errors)
    different = fit_kernel(apart, own, errors)

    assert common.error_share < 0.1
    assert 0.5 < different.error_share < 2
    assert fit_kernel(apart, truth, np.zeros(80)).error_share == 0


def test_extra_variance_is_not_taken_for_noise_of_the_others() -> None:
    twice = np.tile(np.arange(40), 2)
    apart = {kind: matrix[np.ix_(twice, twice)] for kind, matrix in words(40, 2).items()}
    truth = np.tile(standardised(words(40, 2)[COSTS][0]), 2)
    extra = np.tile([0.0, 1.0], 40)
    z = truth + np.sqrt(extra) * np.random.default_rng(6).standard_normal(80)

    told, untold = fit_kernel(apart, z, np.zeros(80), extra), fit_kernel(apart, z, np.zeros(80))

    assert told.noise < 0.1 < untold.noise


def test_the_unit_of_a_distance_does_not_matter() -> None:
    apart = words(20, 0)
    scaled = {kind: 4096 * matrix for kind, matrix in apart.items()}
    z = standardised(np.arange(20.0) % 7)

    first, second = fit_kernel(apart, z, np.zeros(20)), fit_kernel(scaled, z, np.zeros(20))

    np.testing.assert_allclose(first(apart), second(scaled), rtol=1e-9)


def test_the_data_outweigh_the_prior() -> None:
    apart = words(60, 2)
    z = standardised(apart[COSTS][0])
    plain = Kernel(
        {kind: 1 / 5 for kind in apart if kind != GENES},
        {kind: 0.6 * float(np.median(matrix[matrix > 0])) for kind, matrix in apart.items()},
        genes_share=0.5,
        noise=0.01,
    )

    fitted = fit_kernel(apart, z, np.zeros(60))

    def likelihood(kernel: Kernel) -> float:
        return condition(kernel(apart), np.full(60, kernel.noise), z).log_likelihood

    assert likelihood(fitted) > likelihood(plain) + 10


def test_a_single_architecture_gives_a_kernel() -> None:
    apart = {kind: matrix[:1, :1] for kind, matrix in words(9, 1).items()}

    kernel = fit_kernel(apart, np.zeros(1), np.zeros(1))

    assert kernel(apart) == pytest.approx(np.array([[kernel.variance]]))
    assert 0.1 < kernel.variance < 10
    new = kernel({kind: matrix[:1] for kind, matrix in words(9, 1).items()})
    assert (new > 0).all()
    assert (new <= kernel.variance).all()


def test_one_architecture_with_other_genes_gives_a_kernel_of_the_genes() -> None:
    rates = np.array([0.0, 0.3, 1.0])
    apart = {GENES: (rates[:, None] - rates[None, :]) ** 2, COSTS: np.zeros((3, 3))}

    kernel = fit_kernel(apart, np.array([-1.0, 0.0, 1.0]), np.zeros(3))
    K = kernel(apart)  # noqa: N806

    assert K[0, 0] > K[0, 1] > K[0, 2]
    assert kernel(apart).shape == (3, 3)
