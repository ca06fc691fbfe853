"""Growing moves keep the function: random chains over every seed network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.morphism.architecture import Architecture
from automl.morphism.moves import GROWING, MoveKind, apply_move, random_move
from tests.morphs import (
    LIMITS,
    SEEDS,
    TOLERANCE,
    Array,
    evaluate,
    gap,
    quick,
    random_images,
    random_network,
    random_weights,
    trained,
)

CHAINS = given(
    which=st.integers(0, 2),
    size=st.sampled_from([3, 6, 8, 11, 18]),
    channels=st.sampled_from([1, 3, 4]),
    draw=st.integers(0, 2),
    length=st.integers(1, 12),
    seed=SEEDS,
)


def check_chain(
    start: Architecture,
    weights: dict[str, Array],
    kinds: tuple[MoveKind, ...],
    length: int,
    seed: int,
    *,
    noise: float = 0.0,
    training: bool = False,
) -> int:
    """Check that each move of a chain keeps the function; return how many there were."""
    rng = np.random.default_rng(seed)
    images = random_images(start, 4, rng)
    architecture, before = start, evaluate(start, weights, images, training=training)
    for count in range(length):
        drawn = random_move(architecture, LIMITS, rng, kinds, noise)
        if drawn is None:
            return count
        move, child = drawn
        architecture, weight_map = apply_move(architecture, move)
        assert architecture == child
        weights = weight_map(weights)
        after = evaluate(architecture, weights, images, training=training)
        assert gap(before, after) <= TOLERANCE, (move, architecture.summary())
        before = after
    return length


@quick(200)
@CHAINS
def test_chains_of_growing_moves_keep_the_function(
    which: int, size: int, channels: int, draw: int, length: int, seed: int
) -> None:
    start, weights = trained(which, size, channels, draw)

    check_chain(start, weights, GROWING, length, seed)


@pytest.mark.soak
@quick(500)
@CHAINS
def test_many_chains_of_growing_moves_keep_the_function(
    which: int, size: int, channels: int, draw: int, length: int, seed: int
) -> None:
    start, weights = trained(which, size, channels, draw)

    check_chain(start, weights, GROWING, length, seed)


@quick(60)
@given(seed=SEEDS, length=st.integers(1, 8))
def test_chains_from_random_networks_keep_the_function(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    start = random_network(rng)

    check_chain(start, random_weights(start, rng), GROWING, length, seed)


@pytest.mark.parametrize("kind", GROWING)
def test_chains_of_one_kind_keep_the_function(kind: MoveKind) -> None:
    made = 0
    for draw in range(3):
        for which in range(3):
            start, weights = trained(which, 8, 3, draw)
            made += check_chain(start, weights, (kind,), 6, seed=draw)

    assert made >= 30


@quick(40)
@given(which=st.integers(0, 2), seed=SEEDS)
def test_noise_does_not_change_the_function(which: int, seed: int) -> None:
    start, weights = trained(which, 8, 3, 0)

    check_chain(start, weights, (MoveKind.WIDEN, MoveKind.RESIDUAL), 4, seed, noise=0.5)


@pytest.mark.parametrize(
    "kind",
    [MoveKind.RESIDUAL, MoveKind.SEPARABLE, MoveKind.ADD_SKIP, MoveKind.CONCAT_SKIP],
)
def test_inserted_blocks_and_skips_keep_the_function_in_training_mode_too(kind: MoveKind) -> None:
    for draw in range(4):
        for which in range(3):
            start, weights = trained(which, 8, 3, draw)
            assert check_chain(start, weights, (kind,), 4, seed=draw, training=True) >= 1
