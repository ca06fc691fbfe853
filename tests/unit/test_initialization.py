"""Fresh weights, and first filters that read what images consist of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.nodes import conv
from automl.morphism.seeds import seed_architectures
from automl.training.examples import Examples
from automl.training.initialization import initial_weights, whiten
from automl.training.module import Normalization, Weights
from automl.training.problem import Budget, FitHooks
from automl.training.trainer import fit
from benchmarks.fits import Place, fit_problem, normalization_of
from tests.architectures import every_op

CLASSES = 4


def network(*convolutions: Node, channels: int = 3) -> Architecture:
    """A chain of convolutions and the logits."""
    last = len(convolutions)
    nodes = (
        Node(Op.INPUT),
        *convolutions,
        Node(Op.GLOBAL_POOL, (last,)),
        Node(Op.DENSE, (last + 1,), {"units": CLASSES}),
    )
    return Architecture(8, channels, nodes)


def smooth_images(count: int, size: int = 8, channels: int = 3) -> np.ndarray:
    """Images whose neighbouring pixels are alike."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, size // 4, size // 4, channels))
    fine = coarse.repeat(4, axis=1).repeat(4, axis=2) + rng.normal(0, 9, (count, size, size, 1))
    pixels: np.ndarray = np.clip(fine, 0, 255).astype(np.uint8)
    return pixels


def whitened(architecture: Architecture, images: np.ndarray) -> Weights:
    weights = initial_weights(architecture, (0,))
    whiten(weights, architecture, images, normalization_of(images), (0,))
    return weights


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    architecture = every_op()
    first, same, other = (initial_weights(architecture, seed) for seed in ((1, 2), (1, 2), (1, 3)))

    assert all(np.array_equal(first[key], same[key]) for key in first)
    assert not np.array_equal(first["1.weight"], other["1.weight"])
    assert not first["1.bias"].any()


def test_fresh_weights_keep_the_size_of_the_signal_but_for_small_logits() -> None:
    nodes = (
        Node(Op.INPUT),
        Node(Op.FLATTEN, (0,)),
        Node(Op.DENSE, (1,), {"units": 4096}),
        Node(Op.RELU, (2,)),
        Node(Op.DENSE, (3,), {"units": 2}),
    )
    weights = initial_weights(Architecture(8, 3, nodes), (0,))

    assert np.std(weights["2.weight"]) == pytest.approx(np.sqrt(2 / 192), rel=0.02)
    assert np.std(weights["4.weight"]) == pytest.approx(0.1 * np.sqrt(1 / 4096), rel=0.05)


@pytest.mark.parametrize(
    ("first", "second", "kernel", "is_passed_on"),
    [(4, 6, 3, True), (4, 4, 5, True), (6, 4, 3, False), (4, 6, 1, False)],
)
def test_convolutions_pass_their_channels_on(
    first: int, second: int, kernel: int, *, is_passed_on: bool
) -> None:
    architecture = network(conv(0, first), conv(1, second, kernel))

    filters = initial_weights(architecture, (0,))["2.weight"]

    identity = np.zeros((first, first, kernel, kernel), np.float32)
    identity[range(first), range(first), kernel // 2, kernel // 2] = 1
    assert np.array_equal(filters[:first], identity) is is_passed_on
    assert np.unique(filters[first:]).size == filters[first:].size  # random ones


@pytest.mark.parametrize(("channels", "filters"), [(3, 60), (3, 15), (1, 18)])
def test_first_filters_see_uncorrelated_parts_of_the_images(channels: int, filters: int) -> None:
    architecture = network(conv(0, filters), channels=channels)
    images = smooth_images(400, channels=channels)

    found = whitened(architecture, images)["1.weight"]

    pairs = min(filters // 2, 9 * channels)
    np.testing.assert_array_equal(found[:pairs], -found[pairs : 2 * pairs])
    scaled = (images - np.array(normalization_of(images).mean)) / normalization_of(images).std
    windows = np.lib.stride_tricks.sliding_window_view(scaled, (3, 3), axis=(1, 2))
    outputs = windows.reshape(-1, 9 * channels) @ found[:pairs].reshape(pairs, -1).T
    covariance = outputs.T @ outputs / len(outputs)
    variances = np.diag(covariance)
    assert variances[0] == pytest.approx(1, abs=0.15)
    assert np.all(np.diff(variances) < 0.1)  # large ones first; small ones are not blown up
    assert np.abs(covariance - np.diag(variances)).max() < 0.1


def test_filters_that_are_left_over_stay_as_they_are() -> None:
    architecture = network(conv(0, 60), conv(1, 60))

    fresh, found = initial_weights(architecture, (0,)), whitened(architecture, smooth_images(9))

    np.testing.assert_array_equal(found["1.weight"][54:], fresh["1.weight"][54:])
    np.testing.assert_array_equal(found["2.weight"], fresh["2.weight"])


def test_images_of_one_colour_are_borne() -> None:
    architecture = network(conv(0, 8))
    weights = initial_weights(architecture, (0,))
    images = np.full((5, 8, 8, 3), 7, np.uint8)

    whiten(weights, architecture, images, Normalization((7.0,) * 3, (1.0,) * 3), (0,))

    assert all(np.isfinite(array).all() for array in weights.values())


def test_trainings_of_fresh_weights_begin_with_whitened_filters() -> None:
    architecture, images = seed_architectures(8, CLASSES)[0], smooth_images(64)
    problem = fit_problem(
        architecture,
        Examples(images, np.arange(64) % CLASSES),
        Budget(1, 64, patience=0),
        (0,),
        Place(),
    )
    slow = replace(problem, hyperparameters={**problem.hyperparameters, "learning_rate": 1e-9})

    result = fit(slow, None, FitHooks())

    assert result.best_weights is not None
    expected = initial_weights(architecture, (0,))
    whiten(expected, architecture, images, problem.normalization, (0,))
    np.testing.assert_allclose(result.best_weights["1.weight"], expected["1.weight"], atol=1e-6)
