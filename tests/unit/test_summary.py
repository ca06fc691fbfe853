"""Architectures for people."""

from __future__ import annotations

from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.moves import Move, MoveKind, apply_move
from automl.morphism.nodes import conv
from automl.morphism.seeds import seed_architectures
from automl.morphism.summary import difference, table


def small() -> Architecture:
    nodes = (
        Node(Op.INPUT),
        conv(0, 4, stride=2),
        conv(1, 4, 5, groups=4),
        Node(Op.ADD, (1, 2)),
        Node(Op.GLOBAL_POOL, (3,)),
        Node(Op.DENSE, (4,), {"units": 10}),
    )
    return Architecture(8, 3, nodes)


def test_a_line_names_the_layers_that_shape_the_network() -> None:
    assert small().summary() == (
        "8 px: conv3x3-4/2 depthwise5x5-4 add global_pool dense-10; "
        "258 parameters, 0.0 M multiply-adds"
    )


def test_a_table_has_a_line_per_node_and_the_totals() -> None:
    assert table(small()).splitlines() == [
        "node  layer           reads  output       parameters  multiply-adds",
        "   0  input                  3 x 8 x 8",
        "   1  conv3x3-4/2     0      4 x 4 x 4           108          1,728",
        "   2  depthwise5x5-4  1      4 x 4 x 4           100          1,600",
        "   3  add             1 2    4 x 4 x 4",
        "   4  global_pool     3      4",
        "   5  dense-10        4      10                   50             40",
        "      all                    1,592 bytes         258          3,368",
    ]


def test_the_difference_to_the_parent_shows_what_a_move_did() -> None:
    parent = seed_architectures(8, 10)[0]
    wider, _ = apply_move(parent, Move(MoveKind.WIDEN, site=1, width=80))
    deeper, _ = apply_move(wider, Move(MoveKind.DEEPEN, site=3, kernel=5))

    assert difference(parent, deeper).splitlines() == [
        "parameters 80,650 -> 250,490 (+211 %), multiply-adds 852,608 -> 11,267,712 (+1222 %), "
        "activation bytes 71,464 -> 146,216 (+105 %), depth 5 -> 6",
        "~ conv3x3-64 -> conv3x3-80",
        "+ conv5x5-80",
    ]
    assert difference(deeper, parent).splitlines()[1:] == [
        "~ conv3x3-80 -> conv3x3-64",
        "- conv5x5-80",
    ]
    assert len(difference(parent, parent).splitlines()) == 1


def test_a_join_that_loses_an_input_is_a_difference() -> None:
    nodes = (
        Node(Op.INPUT),
        conv(0, 3),
        conv(0, 3, 5),
        Node(Op.ADD, (0, 1, 2)),
        Node(Op.GLOBAL_POOL, (3,)),
        Node(Op.DENSE, (4,), {"units": 2}),
    )
    parent = Architecture(4, 3, nodes)
    child, _ = apply_move(parent, Move(MoveKind.DROP, site=3, source=0))

    assert "~ add of 3 -> add of 2" in difference(parent, child).splitlines()
