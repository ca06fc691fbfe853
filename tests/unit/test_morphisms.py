from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from automl.errors import DamagedDataError, SearchError
from automl.morphism.architecture import BATCH_NORM_EPS, Architecture, Node, Op
from automl.morphism.moves import Limits, Move, MoveKind, apply_move, inherit, legal_moves
from automl.morphism.seeds import seed_architectures
from automl.morphism.weights import Inherit

Array = npt.NDArray[np.float32]
LIMITS = Limits(parameters=150_000, depth=20, flops=4_000_000)
TOLERANCE = 1e-5


def forward(architecture: Architecture, weights: Mapping[str, Array], images: Array) -> Array:  # noqa: C901 - one case per operation
    """Reference evaluation of an architecture; images are normalised, float32 (B, C, S, S)."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    w = {key: torch.from_numpy(array) for key, array in weights.items()}
    values: list[torch.Tensor] = []
    for index, node in enumerate(architecture.nodes):
        read = [values[source] for source in node.inputs]
        name = f"{index}."
        size = {key: int(value) for key, value in node.attributes.items()}
        match node.op:
            case Op.INPUT:
                value = torch.from_numpy(images)
            case Op.CONV:
                value = F.conv2d(
                    read[0], w[name + "weight"], w.get(name + "bias"), size["stride"],
                    size["kernel"] // 2, 1, size["groups"],
                )  # fmt: skip
            case Op.BATCH_NORM:
                value = F.batch_norm(
                    read[0], w[name + "running_mean"], w[name + "running_var"],
                    w[name + "weight"], w[name + "bias"], eps=BATCH_NORM_EPS,
                )  # fmt: skip
            case Op.RELU:
                value = F.relu(read[0])
            case Op.MAX_POOL:
                value = F.max_pool2d(read[0], size["kernel"], size["stride"])
            case Op.AVG_POOL:
                value = F.avg_pool2d(read[0], size["kernel"], size["stride"])
            case Op.GLOBAL_POOL:
                value = read[0].mean(dim=(2, 3))
            case Op.FLATTEN:
                value = read[0].flatten(1)
            case Op.DENSE:
                value = F.linear(read[0], w[name + "weight"], w[name + "bias"])
            case Op.DROPOUT:
                value = read[0]
            case Op.ADD:
                value = torch.stack(read).sum(dim=0)
            case Op.CONCAT:
                value = torch.cat(read, dim=1)
        assert tuple(value.shape[1:]) == architecture.shapes()[index]
        values.append(value)
    result: Array = values[-1].numpy()
    return result


def random_weights(architecture: Architecture, rng: np.random.Generator) -> dict[str, Array]:
    """Weights as after training: batch-norm statistics, gains and biases all over the place."""
    weights = {}
    for key, shape in architecture.weight_shapes().items():
        if key.endswith("running_var"):
            array = rng.uniform(0.2, 3.0, shape)
        elif len(shape) == 1:
            array = rng.normal(0.3, 0.7, shape)
        else:
            array = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        weights[key] = array.astype(np.float32)
    return weights


class Sketch:
    """Appends random blocks to a small network."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes = [Node(Op.INPUT)]
        self.size = 8
        self.width = 0
        self.plain(int(rng.integers(2, 4)) * 2)

    @property
    def last(self) -> int:
        return len(self.nodes) - 1

    def append(self, op: Op, *inputs: int, **attributes: float) -> int:
        self.nodes.append(Node(op, inputs or (self.last,), attributes))
        return self.last

    def conv(self, source: int, width: int, kernel: int, groups: int = 1) -> int:
        bias = int(self.rng.integers(2))
        self.append(
            Op.CONV, source, channels=width, kernel=kernel, stride=1, groups=groups, bias=bias
        )
        self.width = width
        return self.append(Op.BATCH_NORM) if self.rng.random() < 0.7 else self.last

    def plain(self, width: int) -> None:
        self.conv(self.last, width, 3)
        self.append(Op.RELU)

    def grouped(self) -> None:
        self.conv(self.last, self.width, 3, groups=2)
        self.append(Op.RELU)

    def residual(self) -> None:
        start, width = self.last, self.width
        self.plain(width)
        self.append(Op.ADD, self.conv(self.last, width, 3), start)
        if self.rng.random() < 0.7:
            self.append(Op.RELU)

    def concatenated(self) -> None:
        start, width = self.last, self.width
        first = self.conv(start, 4, 1)
        second = self.conv(start, 2, 3)
        if self.rng.random() < 0.5:
            second = self.append(Op.RELU, second)
        self.append(
            Op.CONCAT, *([first, start, second] if self.rng.random() < 0.5 else [second, first])
        )
        self.width = 6 + width if len(self.nodes[-1].inputs) == 3 else 6

    def concatenated_and_added(self) -> None:
        start = self.last
        self.concatenated()
        self.append(Op.ADD, self.last, self.conv(start, self.width, 1))

    def pool(self) -> None:
        if self.size > 2:
            self.append(Op.MAX_POOL if self.rng.random() < 0.5 else Op.AVG_POOL, kernel=2, stride=2)
            self.size //= 2

    def finished(self) -> Architecture:
        self.append(Op.RELU)
        self.append(Op.GLOBAL_POOL if self.rng.random() < 0.5 else Op.FLATTEN)
        if self.rng.random() < 0.5:
            self.append(Op.DENSE, units=6)
            self.append(Op.RELU)
        self.append(Op.DROPOUT, rate=0.5)
        self.append(Op.DENSE, units=3)
        return Architecture(8, 3, tuple(self.nodes)).canonical()[0]


def random_network(rng: np.random.Generator) -> Architecture:
    sketch = Sketch(rng)
    blocks = (
        lambda: sketch.plain(4), sketch.grouped, sketch.residual, sketch.concatenated,
        sketch.concatenated_and_added, sketch.pool,
    )  # fmt: skip
    for _ in range(int(rng.integers(2, 5))):
        blocks[int(rng.integers(len(blocks)))]()
    return sketch.finished()


def gap(left: Array, right: Array) -> float:
    """Largest difference, relative to the outputs where they exceed 1."""
    return float(np.abs(left - right).max() / max(1.0, float(np.abs(left).max())))


def draw(moves: list[Move], rng: np.random.Generator, noise: float = 0.0) -> Move:
    move = moves[int(rng.integers(len(moves)))]
    return replace(move, seed=int(rng.integers(2**32)), noise=noise)


def run_chain(seed: int, noise: float) -> int:
    """Check one chain of moves; return how many there were."""
    rng = np.random.default_rng(seed)
    start = random_network(rng)
    weights = random_weights(start, rng)
    images = rng.normal(size=(3, 3, 8, 8)).astype(np.float32)
    expected = forward(start, weights, images)
    architecture, before = start, expected
    chain: list[Move] = []
    for _ in range(int(rng.integers(1, 9))):
        moves = legal_moves(architecture, LIMITS)
        if not moves:
            break
        chain.append(draw(moves, rng, noise))
        architecture, weight_map = apply_move(architecture, chain[-1])
        weights = weight_map(weights)
        after = forward(architecture, weights, images)
        assert gap(before, after) <= TOLERANCE, (seed, chain[-1], architecture.summary())
        assert architecture.canonical()[0] == architecture
        learned = [array.size for key, array in weights.items() if ".running_" not in key]
        assert architecture.parameters == sum(learned)
        assert all(array.dtype == np.float32 for array in weights.values())
        before = after
    assert gap(expected, before) <= TOLERANCE
    return len(chain)


@pytest.mark.parametrize("first", range(0, 220, 20))
def test_chains_of_moves_keep_the_function(first: int) -> None:
    assert sum(run_chain(seed, noise=0.0) for seed in range(first, first + 20)) >= 40


def test_noise_does_not_change_the_function() -> None:
    assert sum(run_chain(seed, noise=0.5) for seed in range(1000, 1020)) >= 40


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_legal_move_of_the_seeds_keeps_the_function(which: int) -> None:
    rng = np.random.default_rng(which)
    seed = seed_architectures(8, 10)[which]
    weights = random_weights(seed, rng)
    images = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    before = forward(seed, weights, images)
    for move in legal_moves(seed, Limits()):
        child, weight_map = apply_move(seed, move)
        assert gap(before, forward(child, weight_map(weights), images)) <= TOLERANCE
        assert child.genotype() != seed.genotype()


def widening() -> tuple[Architecture, dict[str, Array], Move]:
    """A plain network, and a move that widens its first convolution, behind which is a norm."""
    seed = seed_architectures(8, 10)[0]
    weights = random_weights(seed, np.random.default_rng(3))
    return seed, weights, Move(MoveKind.WIDEN, site=1, width=40, seed=5)


def test_a_batch_norm_that_does_not_follow_its_convolution_is_caught() -> None:
    seed, weights, move = widening()
    images = np.random.default_rng(4).normal(size=(2, 3, 8, 8)).astype(np.float32)
    before = forward(seed, weights, images)
    child, weight_map = apply_move(seed, move)
    right = weight_map(weights)
    assert seed.nodes[2].op is Op.BATCH_NORM
    # New channels in front instead of behind: each channel gets its neighbour's statistics.
    wrong = {key: np.roll(a, 8) if key.startswith("2.") else a for key, a in right.items()}

    assert gap(before, forward(child, right, images)) <= TOLERANCE
    assert gap(before, forward(child, wrong, images)) > 100 * TOLERANCE


def test_a_reader_of_copies_that_does_not_start_at_zero_is_caught() -> None:
    seed, weights, move = widening()
    images = np.random.default_rng(4).normal(size=(2, 3, 8, 8)).astype(np.float32)
    child, weight_map = apply_move(seed, move)
    reader = "4.weight"
    recipe = weight_map.recipes[reader]
    assert isinstance(recipe, Inherit)
    assert recipe.columns is not None
    wrong = {**weight_map(weights), reader: weights[reader][:, recipe.columns.source]}

    assert gap(forward(seed, weights, images), forward(child, wrong, images)) > 100 * TOLERANCE


def test_widening_one_term_of_a_sum_widens_the_others_and_their_norms() -> None:
    seed = seed_architectures(8, 10)[1]
    add = next(index for index, node in enumerate(seed.nodes) if node.op is Op.ADD)

    child, _ = apply_move(seed, Move(MoveKind.WIDEN, site=1, width=40))

    assert seed.shapes()[add] == (32, 8, 8)
    assert child.shapes()[add] == (40, 8, 8)
    widths = [node.whole("channels") for node in child.nodes if node.op is Op.CONV]
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
    images = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    before = forward(parent, weights, images)
    convs = [index for index, node in enumerate(parent.nodes) if node.op is Op.CONV]

    assert {m.site for m in legal_moves(parent, Limits()) if m.kind is MoveKind.WIDEN} == {*convs}
    for site in convs:
        for seed in range(5):
            child, weight_map = apply_move(parent, Move(MoveKind.WIDEN, site, seed, width=9))
            assert gap(before, forward(child, weight_map(weights), images)) <= TOLERANCE


def test_a_relu_where_values_are_negative_is_not_offered() -> None:
    nodes = (
        Node(Op.INPUT),
        Node(Op.CONV, (0,), {"channels": 4, "kernel": 3, "stride": 1, "groups": 1, "bias": 1}),
        Node(Op.GLOBAL_POOL, (1,)),
        Node(Op.DENSE, (2,), {"units": 3}),
    )
    architecture = Architecture(8, 3, nodes)

    assert {move.kind for move in legal_moves(architecture, Limits())} == {MoveKind.WIDEN}
    with pytest.raises(SearchError, match="would change the function"):
        apply_move(architecture, Move(MoveKind.DEEPEN, site=2))


def test_widening_around_grouped_convolutions_is_refused() -> None:
    settings = {"channels": 4, "kernel": 3, "stride": 1, "groups": 1, "bias": 0}
    nodes = (
        Node(Op.INPUT),
        Node(Op.CONV, (0,), settings),
        Node(Op.CONV, (1,), {**settings, "groups": 4}),
        Node(Op.CONV, (2,), settings),
        Node(Op.GLOBAL_POOL, (3,)),
        Node(Op.DENSE, (4,), {"units": 3}),
    )
    architecture = Architecture(8, 3, nodes)

    assert {move.site for move in legal_moves(architecture, Limits())} == {3}
    with pytest.raises(SearchError, match="the layers around it cannot follow"):
        apply_move(architecture, Move(MoveKind.WIDEN, site=1, width=8))


@pytest.mark.parametrize(
    ("move", "reason"),
    [
        (Move(MoveKind.WIDEN, site=99, width=99), "no such inner node"),
        (Move(MoveKind.WIDEN, site=2, width=99), "no width of its own"),
        (Move(MoveKind.WIDEN, site=1, width=32), "not narrower"),
        (Move(MoveKind.DEEPEN, site=3, kernel=2), "the kernel is even"),
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
    assert len(moves) < len(legal_moves(seed, Limits()))
    assert all(limits.allow(apply_move(seed, move)[0]) for move in moves)


def test_moves_round_trip_and_give_the_same_child_again() -> None:
    seed, weights, move = widening()
    move = replace(move, noise=0.01)

    again = Move.from_json(move.to_json())

    assert again == move
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
    assert difference[:32].max() == 0
    reach = weights["1.weight"].max() - weights["1.weight"].min()
    assert 0 < difference[32:].max() <= 0.05 * reach * (1 + 1e-6)


def test_a_deepened_norm_is_near_the_identity_in_training_mode_too() -> None:
    seed, weights, _ = widening()
    rng = np.random.default_rng(0)
    child, weight_map = apply_move(seed, Move(MoveKind.DEEPEN, site=3, kernel=3))
    inherited = weight_map(weights)
    # Behind a batch norm in training mode, channels are distributed like this:
    values = rng.normal(size=(200_000, 32)) * weights["2.weight"] + weights["2.bias"]
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
