"""Shrinking moves inherit what is left; whatever moves do, torch agrees on what came of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.moves import (
    SHRINKING,
    Limits,
    Move,
    MoveKind,
    apply_move,
    inherit,
    legal_moves,
    random_move,
)
from automl.morphism.nodes import conv
from automl.morphism.seeds import seed_architectures
from tests.morphs import (
    LIMITS,
    SEEDS,
    TOLERANCE,
    Array,
    evaluate,
    gap,
    module_of,
    quick,
    random_images,
    random_network,
    random_weights,
    slim,
    train_steps,
    trained,
)


def check_against_torch(architecture: Architecture, weights: dict[str, Array]) -> None:
    """Shapes, parameters, multiply-adds and a training step are what torch makes of the network."""
    rng = np.random.default_rng(0)
    module = module_of(architecture, weights)
    found: dict[int, tuple[int, ...]] = {}
    for index, layer in enumerate(module.nodes.values()):
        layer.register_forward_hook(
            lambda _layer, _read, output, index=index: found.update({index: tuple(output.shape)})
        )
    images = random_images(architecture, 4, rng)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.from_numpy(images))

    shapes = architecture.shapes()
    assert found == {index: (4, *shape) for index, shape in enumerate(shapes)}
    assert architecture.activation_bytes * 4 == sum(4 * int(np.prod(s)) for s in found.values())
    assert architecture.macs * 4 * 2 == counter.get_total_flops()
    assert architecture.parameters == sum(values.numel() for values in module.parameters())
    train_steps(module, images, 1, rng)


@quick(60)
@given(
    which=st.integers(0, 3),
    size=st.sampled_from([3, 8, 11]),
    length=st.integers(1, 12),
    seed=SEEDS,
)
def test_after_any_moves_the_network_trains_and_torch_agrees_on_it(
    which: int, size: int, length: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    if which < 3:
        architecture, weights = trained(which, size, 3, 0)
    else:
        architecture = random_network(rng)
        weights = random_weights(architecture, rng)
    for _ in range(length):
        drawn = random_move(architecture, LIMITS, rng)
        assert drawn is not None
        architecture, weight_map = apply_move(architecture, drawn[0])
        weights = weight_map(weights)
    assert architecture.canonical()[0] == architecture
    assert Architecture.from_genotype(architecture.genotype()) == architecture

    check_against_torch(architecture, weights)


def test_seeds_shrink_too() -> None:
    rng = np.random.default_rng(1)
    for which in range(3):
        architecture = slim(seed_architectures(8, 4)[which], divisor=8)
        weights = random_weights(architecture, rng)
        for _ in range(6):
            drawn = random_move(architecture, Limits(), rng, SHRINKING)
            if drawn is None:
                break
            before = architecture.parameters, len(architecture.nodes)
            architecture, weights = inherit(architecture, weights, [drawn[0]])
            assert (architecture.parameters, len(architecture.nodes)) < before
        check_against_torch(architecture, weights)


def undone(
    start: Architecture, weights: dict[str, Array], kind: MoveKind, undo: MoveKind, seed: int
) -> bool:
    """Whether one of the shrinking moves leads back to where a growing one came from."""
    rng = np.random.default_rng(seed)
    drawn = random_move(start, Limits(), rng, (kind,))
    if drawn is None:
        return True
    child, grown = inherit(start, weights, [drawn[0]])
    for move in legal_moves(child, Limits(), (undo,)):
        back, left = inherit(child, grown, [move])
        if back == start and all(np.array_equal(left[key], weights[key]) for key in weights):
            return True
    return False


@pytest.mark.parametrize(
    ("kind", "undo"),
    [
        (MoveKind.DEEPEN, MoveKind.REMOVE),
        (MoveKind.ADD_SKIP, MoveKind.DROP),
    ],
)
def test_removal_undoes_growth(kind: MoveKind, undo: MoveKind) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        start = random_network(rng)
        assert undone(start, random_weights(start, rng), kind, undo, seed), seed


@pytest.mark.parametrize("kind", [MoveKind.RESIDUAL, MoveKind.SEPARABLE, MoveKind.CONCAT_SKIP])
def test_dropping_a_fresh_branch_keeps_the_function(kind: MoveKind) -> None:
    rng = np.random.default_rng(2)
    start, weights = trained(1, 8, 3, 0)
    images = random_images(start, 4, rng)
    before = evaluate(start, weights, images)
    drawn = random_move(start, Limits(), rng, (kind,))
    assert drawn is not None
    child, grown = inherit(start, weights, [drawn[0]])

    gaps = [
        gap(before, evaluate(*inherit(child, grown, [move]), images))
        for move in legal_moves(child, Limits(), (MoveKind.DROP,))
    ]

    assert len(gaps) == 2  # the fresh branch, and what it was put beside
    assert min(gaps) <= TOLERANCE < max(gaps)


def widened_by_weak_channels(
    start: Architecture, weights: dict[str, Array], move: Move
) -> tuple[Architecture, dict[str, Array], int]:
    """A widened network whose new filters are almost zero, and where the site is in it."""
    child, weight_map = apply_move(start, move)
    grown = weight_map(weights)
    _, noisy_map = apply_move(start, replace(move, noise=0.5))
    noisy = noisy_map(weights)
    for key, array in grown.items():
        is_new = (array != noisy[key]).reshape(len(array), -1).any(axis=1)
        array[is_new] *= 1e-6
    return child, grown, list(weight_map.order).index(move.site)


def test_narrowing_undoes_widening_where_the_new_channels_are_weak() -> None:
    undone_count = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        start = random_network(rng)
        weights = random_weights(start, rng)
        images = random_images(start, 3, rng)
        for move in legal_moves(start, Limits(), (MoveKind.WIDEN,))[::3]:
            child, grown, site = widened_by_weak_channels(start, weights, move)
            width = start.nodes[move.site].attributes.get("channels")
            width = width or start.nodes[move.site].integer("units")
            back = Move(MoveKind.NARROW, site, width=int(width))
            if not can_narrow(child, back):
                continue
            narrowed, left = inherit(child, grown, [back])
            assert narrowed == start
            assert gap(evaluate(start, weights, images), evaluate(start, left, images)) == 0
            undone_count += 1
    assert undone_count >= 60


def can_narrow(architecture: Architecture, move: Move) -> bool:
    """Whether no concatenation is in the way, whose parts a sum would narrow."""
    moves = legal_moves(architecture, Limits(), (MoveKind.NARROW,))
    return move.site in {known.site for known in moves}


def test_a_narrowed_layer_keeps_the_filters_that_the_gain_makes_strong() -> None:
    nodes = (
        Node(Op.INPUT),
        conv(0, 8),
        Node(Op.BATCH_NORM, (1,)),
        Node(Op.RELU, (2,)),
        Node(Op.GLOBAL_POOL, (3,)),
        Node(Op.DENSE, (4,), {"units": 3}),
    )
    parent = Architecture(6, 3, nodes)
    weights = random_weights(parent, np.random.default_rng(0))
    weights["2.running_var"][:] = 1.0
    weights["1.weight"][:] = 1.0
    weights["1.weight"][5] = 10.0
    weights["2.weight"][:] = [1, 2, 3, 4, -5, 0.01, 7, 8]  # the gain outweighs the filter at 5

    child, left = inherit(parent, weights, [Move(MoveKind.NARROW, site=1, width=4)])

    kept = [3, 4, 6, 7]
    assert child.shapes()[1] == (4, 6, 6)
    for key in ("1.weight", "2.weight", "2.bias", "2.running_mean", "2.running_var"):
        assert np.array_equal(left[key], weights[key][kept])
    assert np.array_equal(left["5.weight"], weights["5.weight"][:, kept])
    assert np.array_equal(left["5.bias"], weights["5.bias"])


def test_a_narrowed_image_takes_its_pixels_from_a_flattened_one() -> None:
    nodes = (Node(Op.INPUT), conv(0, 8), Node(Op.FLATTEN, (1,)), Node(Op.DENSE, (2,), {"units": 3}))
    parent = Architecture(2, 3, nodes)
    weights = random_weights(parent, np.random.default_rng(0))
    weights["1.weight"][[0, 1, 2, 6]] *= 100

    _, left = inherit(parent, weights, [Move(MoveKind.NARROW, site=1, width=4)])

    pixels = [4 * channel + pixel for channel in (0, 1, 2, 6) for pixel in range(4)]
    assert np.array_equal(left["3.weight"], weights["3.weight"][:, pixels])


def test_a_concatenation_that_loses_an_input_takes_the_columns_of_its_readers() -> None:
    nodes = (
        Node(Op.INPUT),
        conv(0, 2),
        conv(0, 3, 1),
        Node(Op.CONCAT, (1, 0, 2)),
        conv(3, 4),
        Node(Op.GLOBAL_POOL, (4,)),
        Node(Op.DENSE, (5,), {"units": 3}),
    )
    parent = Architecture(4, 3, nodes).canonical()[0]
    weights = random_weights(parent, np.random.default_rng(0))
    (join,) = (index for index, node in enumerate(parent.nodes) if node.op is Op.CONCAT)
    first, image, last = parent.nodes[join].inputs

    without_image, left = inherit(parent, weights, [Move(MoveKind.DROP, site=join, source=image)])
    assert without_image.shapes()[join] == (5, 4, 4)
    assert np.array_equal(
        left[f"{join + 1}.weight"], weights[f"{join + 1}.weight"][:, [0, 1, 5, 6, 7]]
    )

    without_last, left = inherit(parent, weights, [Move(MoveKind.DROP, site=join, source=last)])
    assert len(without_last.nodes) == len(parent.nodes) - 1
    assert [key for key, value in left.items() if value.shape == (4, 5, 3, 3)] == [f"{join}.weight"]
    assert np.array_equal(left[f"{join}.weight"], weights[f"{join + 1}.weight"][:, :5])
    assert first != last
