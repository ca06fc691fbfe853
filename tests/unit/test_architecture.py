from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest

from automl.errors import ConfigError, DamagedDataError, NewerSchemaError
from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.moves import Limits, apply_move, legal_moves
from automl.morphism.nodes import conv
from automl.morphism.seeds import seed_architectures
from tests.morphs import relabelled

# Written by schema 1; must load for ever.
GOLDEN = (
    '{"input":[3,8,8],"nodes":[["input",[],{}],'
    '["conv",[0],{"bias":0,"channels":4,"groups":1,"kernel":3,"stride":1}],'
    '["batch_norm",[1],{}],["relu",[2],{}],'
    '["conv",[3],{"bias":1,"channels":4,"groups":2,"kernel":1,"stride":1}],["add",[3,4],{}],'
    '["max_pool",[5],{"kernel":2,"stride":2}],["concat",[6,6],{}],["global_pool",[7],{}],'
    '["dropout",[8],{"rate":0.25}],["dense",[9],{"units":10}]],"schema":1}'
)


def branched(*, swap: bool = False, join: Op = Op.CONCAT) -> Architecture:
    """Two different branches, joined."""
    join_inputs = (2, 1) if swap else (1, 2)
    nodes = (
        Node(Op.INPUT),
        conv(0, 4, kernel=3),
        conv(0, 4, kernel=1),
        Node(join, join_inputs),
        Node(Op.GLOBAL_POOL, (3,)),
        Node(Op.DENSE, (4,), {"units": 3}),
    )
    return Architecture(8, 3, nodes)


def twins() -> Architecture:
    """Many equal branches, so that colours tie."""
    nodes = [Node(Op.INPUT)]
    branches = []
    for _ in range(4):
        nodes += [conv(0, 4), Node(Op.RELU, (len(nodes),)), conv(len(nodes) + 1, 4)]
        branches.append(len(nodes) - 1)
    nodes.append(Node(Op.ADD, (branches[0], branches[1])))
    nodes.append(Node(Op.ADD, (branches[2], branches[3])))
    nodes.append(Node(Op.CONCAT, (len(nodes) - 2, len(nodes) - 1, branches[0], branches[2])))
    nodes.append(Node(Op.GLOBAL_POOL, (len(nodes) - 1,)))
    nodes.append(Node(Op.DENSE, (len(nodes) - 1,), {"units": 3}))
    return Architecture(4, 3, tuple(nodes))


@pytest.mark.parametrize("seed", range(20))
def test_the_genotype_does_not_depend_on_node_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grown = seed_architectures(8, 10)[2]
    for _ in range(4):
        moves = legal_moves(grown, Limits())
        grown, _ = apply_move(grown, moves[int(rng.integers(len(moves)))])
    for architecture in (*seed_architectures(20, 5), grown, branched(), twins()):
        assert relabelled(architecture, rng).genotype() == architecture.genotype()


def test_the_canonical_mapping_leads_to_the_same_nodes() -> None:
    shuffled = relabelled(seed_architectures(8, 10)[2], np.random.default_rng(0))

    canonical, new_index = shuffled.canonical()

    assert sorted(new_index.values()) == list(range(len(shuffled.nodes)))
    for old, node in enumerate(shuffled.nodes):
        found = canonical.nodes[new_index[old]]
        assert (found.op, found.attributes) == (node.op, node.attributes)
        assert sorted(found.inputs) == sorted(new_index[source] for source in node.inputs)


def test_the_order_of_a_concatenation_is_part_of_the_genotype() -> None:
    assert branched().genotype() != branched(swap=True).genotype()
    assert branched(join=Op.ADD).genotype() == branched(swap=True, join=Op.ADD).genotype()


def test_genotypes_round_trip() -> None:
    for size in (8, 28, 64):
        for architecture in seed_architectures(size, 7):
            text = architecture.genotype()
            assert Architecture.from_genotype(text) == architecture
            assert Architecture.from_genotype(text).genotype() == text


def test_the_first_schema_still_loads() -> None:
    architecture = Architecture.from_genotype(GOLDEN)

    assert architecture.genotype() == GOLDEN
    assert architecture.shapes()[6:9] == ((4, 4, 4), (8, 4, 4), (8,))


def test_a_newer_genotype_is_refused() -> None:
    newer = json.dumps({**json.loads(GOLDEN), "schema": 3})

    with pytest.raises(NewerSchemaError, match="schema 3; this version reads up to 2"):
        Architecture.from_genotype(newer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        GOLDEN[:-40],
        GOLDEN.replace("max_pool", "magic"),
        GOLDEN.replace("[3,8,8]", "[3,8,9]"),
        GOLDEN.replace('["add",[3,4],{}]', '["add",[3,9],{}]'),
        GOLDEN.replace('"kernel":3', '"kernel":"3"'),
    ],
)
def test_a_damaged_genotype_is_refused(text: str) -> None:
    with pytest.raises(DamagedDataError, match="is not a genotype"):
        Architecture.from_genotype(text)


def test_parameters_and_macs_count_what_is_there() -> None:
    nodes = (
        Node(Op.INPUT),
        conv(0, 4),
        Node(Op.BATCH_NORM, (1,)),
        Node(Op.RELU, (2,)),
        conv(3, 8, groups=2, bias=1),
        Node(Op.GLOBAL_POOL, (4,)),
        Node(Op.DENSE, (5,), {"units": 10}),
    )

    architecture = Architecture(6, 3, nodes)

    assert architecture.parameters == 4 * 3 * 9 + 2 * 4 + (8 * 2 * 9 + 8) + (10 * 8 + 10)
    assert architecture.macs == 36 * (4 * 3 * 9 + 8 * 2 * 9) + 80
    assert architecture.depth == 3
    assert architecture.classes == 10
    learned = [
        math.prod(shape)
        for key, shape in architecture.weight_shapes().items()
        if "running" not in key
    ]
    assert sum(learned) == architecture.parameters


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ((Node(Op.INPUT),), "starts with an input node"),
        ((Node(Op.INPUT), Node(Op.DENSE, (0,), {"units": 3})), "cannot read shapes"),
        (
            (Node(Op.INPUT), Node(Op.ADD, (0, 2)), Node(Op.DENSE, (1,), {"units": 3})),
            "not earlier nodes",
        ),
        (
            (
                Node(Op.INPUT),
                Node(Op.RELU, (0,)),
                Node(Op.FLATTEN, (0,)),
                Node(Op.DENSE, (2,), {"units": 3}),
            ),
            "no node reads it",
        ),
        (
            (
                Node(Op.INPUT),
                conv(0, 4, kernel=2),
                Node(Op.FLATTEN, (1,)),
                Node(Op.DENSE, (2,), {"units": 3}),
            ),
            "kernel is even",
        ),
        (
            (
                Node(Op.INPUT),
                conv(0, 4, groups=2),
                Node(Op.FLATTEN, (1,)),
                Node(Op.DENSE, (2,), {"units": 3}),
            ),
            "cannot read shapes",
        ),
        (
            (Node(Op.INPUT), Node(Op.FLATTEN, (0,)), Node(Op.DENSE, (1,))),
            "has attributes",
        ),
    ],
)
def test_an_invalid_graph_is_refused(nodes: tuple[Node, ...], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Architecture(8, 3, nodes)


def test_architectures_travel_between_processes_and_say_what_they_are() -> None:
    seed = seed_architectures(8, 10)[0]

    assert pickle.loads(pickle.dumps(seed)) == seed  # noqa: S301
    assert hash(seed) == hash(pickle.loads(pickle.dumps(seed)))  # noqa: S301
    assert seed.summary() == (
        "8 px: conv3x3-64 pool/2 conv3x3-64 pool/2 conv3x3-64 global_pool dense-64 dense-10; "
        "80,650 parameters, 0.9 M multiply-adds"
    )
