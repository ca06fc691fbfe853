from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata

from automl.search.surrogate.targets import NormalScores

losses_ = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=20).map(np.array)


@given(losses=losses_, new=losses_)
def test_a_larger_loss_has_a_larger_target(losses: np.ndarray, new: np.ndarray) -> None:
    scores = NormalScores.of(losses)
    asked = np.sort(np.concatenate([losses, new, new + 0.5]))

    known, anything = scores(np.unique(losses)), scores(asked)

    assert (np.diff(known) > 0).all()
    assert (np.diff(anything) >= 0).all()


@given(losses_)
def test_equal_losses_have_equal_targets(losses: np.ndarray) -> None:
    targets = NormalScores.of(losses)(losses)

    for loss in np.unique(losses):
        assert len(set(targets[losses == loss].tolist())) == 1


@given(losses_)
def test_targets_are_the_normal_quantiles_of_mean_ranks_to_the_bit(losses: np.ndarray) -> None:
    ranks = (rankdata(losses) - 0.5) / len(losses)

    scores = NormalScores.of(losses)

    assert scores(losses).tobytes() == norm.ppf(ranks).tobytes()
    assert scores.scores[0] == norm.ppf(ranks.min())


@given(losses_)
def test_only_the_order_of_losses_matters(losses: np.ndarray) -> None:
    expected = NormalScores.of(losses)(losses)

    for other in (np.exp(losses), losses**3, 1e-3 * losses + 1e3):
        assert np.array_equal(NormalScores.of(other)(other), expected)


def test_targets_are_normal_quantiles_of_the_ranks() -> None:
    losses = np.array([0.3, 0.1, 1e9, 0.2])

    expected = norm.ppf([5 / 8, 1 / 8, 7 / 8, 3 / 8])

    np.testing.assert_allclose(NormalScores.of(losses)(losses), expected, atol=1e-12)


def test_what_is_beyond_all_known_is_beyond_them_by_one_rank() -> None:
    losses = np.array([0.1, 0.2, 0.3, 0.4])
    scores = NormalScores.of(losses)

    assert scores(np.array([-1e9, 1e9])) == pytest.approx(norm.ppf([0.5 / 5, 1 - 0.5 / 5]))
    assert scores(losses)[-1] < scores(np.array([0.41]))[0] <= scores(np.array([1e9]))[0]


@given(losses_)
def test_the_loss_of_a_target_is_the_one_that_has_it(losses: np.ndarray) -> None:
    scores = NormalScores.of(losses)

    np.testing.assert_allclose(scores.inverse(scores(losses)), losses)
    assert scores.inverse(np.array([-9.0, 9.0])).tolist() == [losses.min(), losses.max()]


def test_equal_losses_share_the_mean_of_their_ranks() -> None:
    losses = np.array([2.0, 1.0, 1.0, 3.0])

    expected = norm.ppf([5 / 8, 2 / 8, 2 / 8, 7 / 8])

    np.testing.assert_allclose(NormalScores.of(losses)(losses), expected, atol=1e-12)


def test_a_thousand_failures_to_learn_stay_within_four_deviations() -> None:
    losses = np.concatenate([np.linspace(-0.99, -0.98, 10), np.full(1000, 1e6)])

    targets = NormalScores.of(losses)(losses)

    assert np.abs(targets).max() < 4
    assert np.ptp(targets[:10]) > 0.9


def test_beyond_the_known_losses_the_map_goes_on() -> None:
    scores = NormalScores.of(np.array([1.0, 2.0, 3.0, 4.0]))

    left, right = scores(np.array([0.96, 0.98, 1.0])), scores(np.array([4.0, 4.02]))

    assert np.diff(left) == pytest.approx([right[1] - right[0]] * 2)
    assert right[1] > right[0]


def test_a_lone_loss_is_average() -> None:
    scores = NormalScores.of(np.array([0.4]))

    assert scores(np.array([0.4])).tolist() == [0]
    assert np.isfinite(scores(np.array([-1e9, 1e9]))).all()


@given(losses=losses_, error=st.floats(0.01, 20))
def test_variances_grow_with_the_standard_error(losses: np.ndarray, error: float) -> None:
    scores, errors = NormalScores.of(losses), np.full(len(losses), error)

    none, some, more = (scores.variances(losses, errors * times) for times in (0, 1, 2))

    assert not none.any()
    assert (some >= 0).all()
    assert (more >= some).all()


def test_variances_are_those_of_the_map_where_it_is_straight() -> None:
    scores = NormalScores.of(np.arange(1000.0))
    middle, errors = np.array([500.0]), np.array([3.0])
    slope = scores(middle + 1) - scores(middle)

    assert np.sqrt(scores.variances(middle, errors)) == pytest.approx(3 * slope, rel=1e-3)
