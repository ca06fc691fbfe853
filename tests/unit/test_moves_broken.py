"""The checks of the moves notice when a move's handling of some layer is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest

from automl.errors import SearchError
from automl.morphism import blocks, deepen, narrow, removal, resize, skips, widen
from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.insert import fresh_norm
from automl.morphism.moments import Moments, undoing_norm
from automl.morphism.moves import GROWING, Limits, Move, MoveKind, apply_move, inherit, legal_moves
from automl.morphism.nodes import RECTIFIERS, conv
from automl.morphism.weights import Weights
from tests.morphs import TOLERANCE, Array, evaluate, gap, random_images, random_weights

FREE = Limits()


def everything() -> tuple[Architecture, dict[str, Array]]:
    """A network in which every kind of layer stands behind and before some convolution."""
    nodes = [Node(Op.INPUT)]

    def add(op: Op, *inputs: int, **attributes: int) -> int:
        nodes.append(Node(op, inputs or (len(nodes) - 1,), attributes))
        return len(nodes) - 1

    def block(source: int, channels: int, kernel: int, groups: int = 1) -> int:
        nodes.append(conv(source, channels, kernel, groups=groups))
        return add(Op.RELU, add(Op.BATCH_NORM))

    start = block(0, 6, 3)
    nodes.append(conv(block(start, 6, 3, groups=6), 6, 1))
    inner = add(Op.BATCH_NORM)
    summed = add(Op.RELU, add(Op.ADD, start, inner))
    branch = block(summed, 4, 1)
    nodes.append(conv(summed, 5))
    joined = add(Op.CONCAT, branch, add(Op.BATCH_NORM))
    nodes.append(conv(add(Op.MAX_POOL, joined, kernel=2, stride=2), 6))
    add(Op.FLATTEN)
    add(Op.RELU, add(Op.DENSE, units=6))
    add(Op.DENSE, units=3)
    architecture = Architecture(6, 3, tuple(nodes)).canonical()[0]
    return architecture, random_weights(architecture, np.random.default_rng(3))


SITES: Mapping[MoveKind, int] = {  # how many nodes a move of the kind may start from
    MoveKind.DEEPEN: 5,  # the ReLUs
    MoveKind.WIDEN: 6,  # all convolutions but the depthwise one, and a dense layer
    MoveKind.KERNEL: 6,  # the convolutions
    MoveKind.ADD_SKIP: 10,  # batch norms, ReLUs of images and the sum
    MoveKind.CONCAT_SKIP: 10,
    MoveKind.RESIDUAL: 6,  # ReLUs of images, the sum and the pooling
    MoveKind.SEPARABLE: 6,
}


def check_growth(kind: MoveKind) -> None:
    """Every layer that the move should reach is there, and all moves keep the function."""
    architecture, weights = everything()
    images = random_images(architecture, 3, np.random.default_rng(4))
    moves = legal_moves(architecture, FREE, (kind,))
    assert len({move.site for move in moves}) == SITES[kind]
    for move in moves:
        child, grown = inherit(architecture, weights, [move])
        before = evaluate(architecture, weights, images)
        assert gap(before, evaluate(child, grown, images)) <= TOLERANCE, move


def check_undone(kind: MoveKind, undo: MoveKind) -> None:
    """Every growth of a kind can be taken back."""
    architecture, weights = everything()
    for move in legal_moves(architecture, FREE, (kind,)):
        child, grown = inherit(architecture, weights, [move])
        backs = [
            inherit(child, grown, [back])
            for back in legal_moves(child, FREE, (undo,))
            if apply_move(child, back)[0] == architecture
        ]
        assert any(
            all(np.array_equal(left[key], weights[key]) for key in weights) for _, left in backs
        ), move


def check_dropped_inputs() -> None:
    """A concatenation without an input computes what it does where the input's columns are 0."""
    architecture, weights = everything()
    images = random_images(architecture, 3, np.random.default_rng(4))
    (join,) = (i for i, node in enumerate(architecture.nodes) if node.op is Op.CONCAT)
    (reader,) = (i for i, node in enumerate(architecture.nodes) if node.inputs == (join + 1,))
    columns = [slice(0, 4), slice(4, 9)]
    if architecture.shapes()[architecture.nodes[join].inputs[0]][0] == 5:
        columns = [slice(0, 5), slice(5, 9)]
    for source, lost in zip(architecture.nodes[join].inputs, columns, strict=True):
        unread = {**weights, f"{reader}.weight": weights[f"{reader}.weight"].copy()}
        unread[f"{reader}.weight"][:, lost] = 0
        child, left = inherit(architecture, weights, [Move(MoveKind.DROP, join, source=source)])
        expected = evaluate(architecture, unread, images)
        assert gap(expected, evaluate(child, left, images)) <= TOLERANCE


def check_narrowing() -> None:
    """Narrowing by two channels that write nothing keeps the function."""
    architecture, weights = everything()
    images = random_images(architecture, 3, np.random.default_rng(4))
    sites = sorted({m.site for m in legal_moves(architecture, FREE, (MoveKind.WIDEN,))})
    assert len(sites) == SITES[MoveKind.WIDEN]
    for site in sites:
        width = resize.width_of(architecture.nodes[site])
        silenced = {key: array.copy() for key, array in weights.items()}
        for index in resize.spread(architecture, site, ((width, width - 2),)):
            if architecture.nodes[index].op in {Op.CONV, Op.DENSE, Op.BATCH_NORM}:
                for name in ("weight", "bias"):
                    silenced.get(f"{index}.{name}", np.zeros(4))[[1, 3]] = 0
        expected = evaluate(architecture, silenced, images)
        narrower = Move(MoveKind.NARROW, site, width=width - 2)
        child, left = inherit(architecture, silenced, [narrower])
        assert gap(expected, evaluate(child, left, images)) <= TOLERANCE, site


CHECKS: Mapping[str, Callable[[], None]] = {
    **{str(kind): partial(check_growth, kind) for kind in GROWING},
    "remove": lambda: check_undone(MoveKind.DEEPEN, MoveKind.REMOVE),
    "drop skip": lambda: check_undone(MoveKind.ADD_SKIP, MoveKind.DROP),
    "drop input": check_dropped_inputs,
    "narrow": check_narrowing,
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_checks_pass_where_nothing_is_broken(check: str) -> None:
    CHECKS[check]()


def without(op: Op) -> Callable[..., dict[str, Array]]:
    """`resized_arrays` that forgets the layers of one kind."""
    whole = resize.resized_arrays

    def forgetful(
        parent: Architecture, maps: Any, picks: resize.Picks, weights: Weights
    ) -> dict[str, Array]:
        arrays = whole(parent, maps, picks, weights)
        return {k: a for k, a in arrays.items() if parent.nodes[int(k.split(".")[0])].op is not op}

    return forgetful


def norm_of_gain_one(moments: Moments) -> dict[str, Array]:
    """A batch norm that normalises, and does not undo it."""
    return {**undoing_norm(moments), "weight": np.ones(len(moments.mean), np.float32)}


def all_known(segments: resize.Segments, picks: resize.Picks) -> resize.ChannelMap:
    """Channels none of which counts as new."""
    known = CHANNEL_MAP(segments, picks)
    return resize.ChannelMap(known.source, np.zeros_like(known.is_new))


def in_the_corner(filters: Array, kernel: int) -> Array:
    margin = kernel - filters.shape[-1]
    padded: Array = np.pad(filters, ((0, 0), (0, 0), (0, margin), (0, margin)))
    return padded


def add_is_not_followed(spread: Any, index: int, node: Node) -> None:
    """`_backwards` that does not change the other terms of a sum."""
    if node.op is not Op.ADD:
        BACKWARDS(spread, index, node)


def joined_at_the_end(spread: Any, reader: int) -> None:
    """`_join` that puts all new channels behind the last input."""
    total = spread.architecture.shapes()[reader][0]
    changed = [spread.maps[i] for i in spread.architecture.nodes[reader].inputs if i in spread.maps]
    extra = sum(after - before for segments in changed for before, after in segments)
    spread.require(reader, ((total, total + extra),))


def one_pixel(spread: Any, index: int, segments: resize.Segments) -> resize.Segments:
    """`_flattened` that puts the pixels of new channels in front of the last old one's."""
    pixels = int(np.prod(spread.architecture.shapes()[index][1:]))
    (before, after) = segments[-1]
    width, extra = before * pixels, (after - before) * pixels
    return ((width - pixels, width - pixels + extra), (pixels, pixels))


CHANNEL_MAP = resize.channel_map
BACKWARDS = resize._Spread._backwards
SWEPT = removal._swept
BROKEN = [
    ("deepen", deepen, "undoing_norm", norm_of_gain_one),
    ("deepen", deepen, "never_negative", lambda graph, index: True),
    ("widen", widen, "resized_arrays", without(Op.BATCH_NORM)),
    ("widen", widen, "resized_arrays", without(Op.DENSE)),
    ("widen", resize, "channel_map", all_known),
    ("widen", resize, "is_depthwise", lambda graph, index: False),
    ("widen", resize._Spread, "_backwards", add_is_not_followed),
    ("widen", resize._Spread, "_join", joined_at_the_end),
    ("widen", resize._Spread, "_flattened", one_pixel),
    ("kernel", deepen, "centred", in_the_corner),
    ("add_skip", skips, "fresh_norm", lambda width, gain: fresh_norm(width, 1.0)),
    ("concat_skip", skips, "first_channels", lambda w, n: np.eye(w, n)[:, ::-1, None, None]),
    ("residual", blocks, "fresh_norm", lambda width, gain: fresh_norm(width, 1.0)),
    ("separable", blocks, "fresh_norm", lambda width, gain: fresh_norm(width, 1.0)),
    ("separable", blocks, "never_negative", lambda graph, index: True),
    ("narrow", narrow, "resized_arrays", without(Op.BATCH_NORM)),
    ("narrow", narrow, "resized_arrays", without(Op.DENSE)),
    ("narrow", narrow, "channel_importance", lambda *_: np.arange(9)),
    ("narrow", resize._Spread, "_backwards", add_is_not_followed),
    ("narrow", resize._Spread, "_join", lambda spread, reader: None),
    ("remove", removal, "_GOES_ALONG", (RECTIFIERS,)),
    ("remove", removal, "_GOES_ALONG", (frozenset({Op.BATCH_NORM}),)),
    ("drop skip", removal, "_swept", lambda nodes, _, arrays, move: SWEPT(nodes, {}, arrays, move)),
    ("drop input", removal, "resized_arrays", without(Op.CONV)),
    ("drop input", removal, "spread_forwards", lambda graph, site, first: {}),
]


@pytest.mark.parametrize(("check", "owner", "name", "broken"), BROKEN)
def test_the_checks_fail_where_a_layer_is_not_handled(
    check: str, owner: Any, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)

    with pytest.raises((AssertionError, SearchError, IndexError, ValueError)):
        CHECKS[check]()
