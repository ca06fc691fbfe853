from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from automl.errors import DamagedDataError, SearchError
from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.move import MAX_WIDTH
from automl.morphism.moves import (
    GROWING,
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
from tests.morphs import TOLERANCE, Array, evaluate, gap, random_images, random_weights

SMALL = Limits(parameters=400_000, depth=10, macs=10_000_000)
FREE = Limits()
BASIC = (MoveKind.DEEPEN, MoveKind.WIDEN)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_growing_move_of_the_seeds_keeps_the_function(which: int) -> None:
    rng = np.random.default_rng(which)
    seed = seed_architectures(8, 10)[which]
    weights = random_weights(seed, rng)
    images = random_images(seed, 2, rng)
    before = evaluate(seed, weights, images)
    for move in legal_moves(seed, FREE, GROWING):
        child, weight_map = apply_move(seed, move)
        assert gap(before, evaluate(child, weight_map(weights), images)) <= TOLERANCE
        assert child.genotype() != seed.genotype()


def widening() -> tuple[Architecture, dict[str, Array], Move]:
    """A plain network, and a move that widens its first convolution, behind which is a norm."""
    seed = seed_architectures(8, 10)[0]
    weights = random_weights(seed, np.random.default_rng(3))
    return seed, weights, Move(MoveKind.WIDEN, site=1, width=80, seed=5)


def test_widening_one_term_of_a_sum_widens_the_others_and_their_norms() -> None:
    seed = seed_architectures(8, 10)[2]
    add = next(index for index, node in enumerate(seed.nodes) if node.op is Op.ADD)

    child, _ = apply_move(seed, Move(MoveKind.WIDEN, site=1, width=40))

    assert seed.shapes()[add] == (32, 8, 8)
    assert child.shapes()[add] == (40, 8, 8)
    widths = [node.integer("channels") for node in child.nodes if node.op is Op.CONV]
    assert widths[:3] == [40, 32, 40]  # the stem, inside the block, the end of the block


def concatenation(*, is_added: bool) -> Architecture:
    """A concatenation of two convolutions, flattened; perhaps added to a third."""
    settings = {"kernel": 1, "stride": 1, "groups": 1, "bias": 1}
    nodes = [Node(Op.INPUT)]
    nodes += [Node(Op.CONV, (0,), {"channels": width, **settings}) for width in (4, 2, 6)]
    nodes.append(Node(Op.CONCAT, (1, 2)))
    nodes.append(Node(Op.ADD, (3, 4)) if is_added else Node(Op.CONCAT, (4, 3)))
    nodes += [Node(Op.BATCH_NORM, (5,)), Node(Op.RELU, (6,)), Node(Op.FLATTEN, (7,))]
    nodes.append(Node(Op.DENSE, (8,), {"units": 3}))
    return Architecture(8, 3, tuple(nodes)).canonical()[0]


@pytest.mark.parametrize("is_added", [True, False])
def test_every_layer_of_a_concatenation_can_be_widened(is_added: bool) -> None:  # noqa: FBT001
    parent = concatenation(is_added=is_added)
    rng = np.random.default_rng(0)
    weights = random_weights(parent, rng)
    images = random_images(parent, 2, rng)
    before = evaluate(parent, weights, images)
    convs = [index for index, node in enumerate(parent.nodes) if node.op is Op.CONV]

    assert {m.site for m in legal_moves(parent, FREE, (MoveKind.WIDEN,))} == {*convs}
    for site in convs:
        for seed in range(5):
            child, weight_map = apply_move(parent, Move(MoveKind.WIDEN, site, seed, width=9))
            assert gap(before, evaluate(child, weight_map(weights), images)) <= TOLERANCE


def test_a_relu_where_values_are_negative_is_not_offered() -> None:
    nodes = (
        Node(Op.INPUT),
        Node(Op.CONV, (0,), {"channels": 4, "kernel": 3, "stride": 1, "groups": 1, "bias": 1}),
        Node(Op.GLOBAL_POOL, (1,)),
        Node(Op.DENSE, (2,), {"units": 3}),
    )
    architecture = Architecture(8, 3, nodes)

    assert {move.kind for move in legal_moves(architecture, FREE, BASIC)} == {MoveKind.WIDEN}
    with pytest.raises(SearchError, match="would change the function"):
        apply_move(architecture, Move(MoveKind.DEEPEN, site=2))


def between_convolutions(middle: Node) -> Architecture:
    nodes = (Node(Op.INPUT), conv(0, 4), middle, conv(2, 4), Node(Op.GLOBAL_POOL, (3,)))
    return Architecture(8, 3, (*nodes, Node(Op.DENSE, (4,), {"units": 3})))


def test_widening_around_grouped_convolutions_is_refused() -> None:
    architecture = between_convolutions(conv(1, 4, groups=2))

    assert {move.site for move in legal_moves(architecture, FREE, BASIC)} == {3}
    with pytest.raises(SearchError, match="the layers around it cannot follow"):
        apply_move(architecture, Move(MoveKind.WIDEN, site=1, width=8))


def test_depthwise_convolutions_follow_what_they_read() -> None:
    architecture = between_convolutions(conv(1, 4, groups=4))

    child, _ = apply_move(architecture, Move(MoveKind.WIDEN, site=1, width=8))

    assert (child.nodes[2].integer("channels"), child.nodes[2].integer("groups")) == (8, 8)
    assert child.nodes[3].integer("channels") == 4


def test_no_move_makes_a_tensor_wider_than_the_cap() -> None:
    architecture = between_convolutions(conv(1, MAX_WIDTH - 2))
    free = Limits(parameters=2**40, macs=2**50)

    widths = {m.width for m in legal_moves(architecture, free, (MoveKind.WIDEN,)) if m.site == 2}

    assert widths == set()
    with pytest.raises(SearchError, match="width 4097 is above 4096"):
        apply_move(architecture, Move(MoveKind.WIDEN, site=2, width=MAX_WIDTH + 1))


@pytest.mark.parametrize(
    ("move", "reason"),
    [
        (Move(MoveKind.WIDEN, site=99, width=99), "no such inner node"),
        (Move(MoveKind.WIDEN, site=2, width=99), "no width of its own"),
        (Move(MoveKind.WIDEN, site=1, width=64), "not narrower"),
        (Move(MoveKind.DEEPEN, site=3, kernel=2), "the kernel is even"),
        (Move(MoveKind.DEEPEN, site=3), "would change the function"),
        (Move(MoveKind.KERNEL, site=2, kernel=5), "has no filters"),
        (Move(MoveKind.KERNEL, site=1, kernel=3), "kernel 3 is even, not larger, or above 7"),
        (Move(MoveKind.ADD_SKIP, site=3, source=4), "cannot be brought there"),
        (Move(MoveKind.CONCAT_SKIP, site=1, source=0), "cannot be brought there"),
        (Move(MoveKind.RESIDUAL, site=2, kernel=3), "no image that a block may follow"),
        (Move(MoveKind.SEPARABLE, site=3, kernel=2), "the kernel is even"),
        (Move(MoveKind.NARROW, site=1, width=64), "not wider"),
        (Move(MoveKind.NARROW, site=3, width=4), "no width of its own"),
        (Move(MoveKind.REMOVE, site=1), "not the shape of its input"),
        (Move(MoveKind.DROP, site=1), "not one of its joined inputs"),
    ],
)
def test_an_illegal_move_is_refused(move: Move, reason: str) -> None:
    with pytest.raises(SearchError, match=reason):
        apply_move(seed_architectures(8, 10)[0], move)


def test_limits_are_kept() -> None:
    seed = seed_architectures(8, 10)[0]
    limits = Limits(parameters=seed.parameters + 5_000, depth=seed.depth)

    moves = legal_moves(seed, limits)

    assert moves
    assert len(moves) < len(legal_moves(seed, FREE))
    assert all(limits.allow(apply_move(seed, move)[0]) for move in moves)


def test_activations_can_be_limited() -> None:
    seed = seed_architectures(8, 10)[0]
    limits = Limits(activation_bytes=seed.activation_bytes)
    layers = [move.kind for move in legal_moves(seed, FREE, GROWING)]

    assert {move.kind for move in legal_moves(seed, limits, GROWING)} == {MoveKind.KERNEL}
    assert set(layers) == set(GROWING)


def test_a_drawn_move_is_legal_and_within_the_limits() -> None:
    rng = np.random.default_rng(0)
    architecture = seed_architectures(8, 10)[2]
    legal = legal_moves(architecture, SMALL, tuple(MoveKind))
    drawn = [random_move(architecture, SMALL, rng, noise=0.5) for _ in range(400)]

    for found in drawn:
        assert found is not None
        move, child = found
        assert replace(move, seed=0, noise=0.0) in legal
        assert move.noise == (0.5 if move.kind is MoveKind.WIDEN else 0.0)
        assert apply_move(architecture, move)[0] == child
    kinds = [found[0].kind for found in drawn if found is not None]
    assert all(20 <= kinds.count(kind) <= 65 for kind in MoveKind)  # 40 of each, give or take


def test_drawing_a_move_builds_one_child(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = seed_architectures(8, 10)[2]
    built: list[Architecture] = []
    check = Architecture.__post_init__

    def noted(new: Architecture) -> None:
        built.append(new)
        check(new)

    monkeypatch.setattr(Architecture, "__post_init__", noted)

    assert random_move(seed, FREE, np.random.default_rng(0)) is not None

    assert len(built) == 1
    assert len(legal_moves(seed, FREE)) > 100


def test_equal_generators_draw_equal_moves() -> None:
    seed = seed_architectures(8, 10)[0]
    first, second = (random_move(seed, FREE, np.random.default_rng(7)) for _ in range(2))

    assert first == second


def test_nothing_is_drawn_where_nothing_is_legal() -> None:
    seed = seed_architectures(8, 10)[0]
    rng = np.random.default_rng(0)

    assert random_move(seed, Limits(parameters=1), rng) is None
    assert random_move(seed, FREE, rng, kinds=(MoveKind.DROP,)) is None
    assert random_move(seed, FREE, rng, kinds=()) is None


def test_moves_of_older_logs_are_read() -> None:
    values = {"kind": "widen", "site": 1, "seed": 17, "kernel": 0, "width": 48, "noise": 0.01}

    assert Move.from_json(values) == Move(MoveKind.WIDEN, 1, 17, width=48, noise=0.01)


def test_moves_round_trip_and_give_the_same_child_again() -> None:
    seed, weights, move = widening()
    move = replace(move, noise=0.01)

    again = Move.from_json(move.to_json())

    assert again == move
    skip = Move(MoveKind.ADD_SKIP, site=9, source=4)
    assert Move.from_json(skip.to_json()) == skip
    first, second = (inherit(seed, weights, [m]) for m in (move, again))
    assert first[0] == second[0]
    assert all(np.array_equal(first[1][key], second[1][key]) for key in first[1])


def test_a_damaged_move_is_refused() -> None:
    with pytest.raises(DamagedDataError, match="is not a move"):
        Move.from_json({"kind": "shrink"})


def test_noise_is_bounded_and_touches_only_new_filters() -> None:
    seed, weights, move = widening()
    plain = inherit(seed, weights, [move])[1]
    noisy = inherit(seed, weights, [replace(move, noise=0.1)])[1]

    changed = {key for key in plain if not np.array_equal(plain[key], noisy[key])}

    assert changed == {"1.weight"}
    difference = np.abs(plain["1.weight"] - noisy["1.weight"])
    assert difference[:64].max() == 0
    reach = weights["1.weight"].max() - weights["1.weight"].min()
    assert 0 < difference[64:].max() <= 0.05 * reach * (1 + 1e-6)


def test_a_deepened_norm_is_near_the_identity_in_training_mode_too() -> None:
    seed, weights, _ = widening()
    rng = np.random.default_rng(0)
    child, weight_map = apply_move(seed, Move(MoveKind.DEEPEN, site=3, kernel=3))
    inherited = weight_map(weights)
    # Behind a batch norm in training mode, channels are distributed like this:
    values = rng.normal(size=(200_000, 64)) * weights["2.weight"] + weights["2.bias"]
    rectified = np.maximum(values, 0)

    assert child.nodes[5].op is Op.BATCH_NORM
    np.testing.assert_allclose(inherited["5.running_mean"], rectified.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(inherited["5.running_var"], rectified.var(axis=0), atol=0.03)


def test_weights_of_another_architecture_are_refused() -> None:
    seed, weights, move = widening()
    other = seed_architectures(8, 10)[1]
    _, weight_map = apply_move(seed, move)

    with pytest.raises(DamagedDataError, match="belongs to another architecture"):
        weight_map(random_weights(other, np.random.default_rng(0)))
    del weights["1.weight"]
    with pytest.raises(DamagedDataError, match=r"Weight 1.weight cannot be inherited"):
        weight_map(weights)
