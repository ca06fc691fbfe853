"""ReLU6: a rectifier with a ceiling, which moves treat as a ReLU where that keeps the function."""

from __future__ import annotations

import json

import numpy as np
import pytest

from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.insert import is_idle
from automl.morphism.moments import estimate_moments
from automl.morphism.moves import GROWING, Limits, Move, MoveKind, apply_move, legal_moves
from automl.morphism.nodes import conv
from automl.onnx.model import OnnxModel
from automl.tracks.image.layer_graph import layer_graph
from automl.tracks.image.onnx import build_onnx
from automl.tracks.image.resize import resize_graph
from automl.training.inference import predict_probabilities
from automl.training.module import Normalization
from tests.morphs import TOLERANCE, Array, evaluate, gap, random_images, random_weights

NORMALIZATION = Normalization((120.0, 110.0, 100.0), (60.0, 55.0, 50.0))


def clipped(rectifier: Op = Op.RELU6) -> Architecture:
    """Two convolutions with norms and rectifiers, the second of which keeps the shape."""
    nodes = [
        Node(Op.INPUT), conv(0, 6), Node(Op.BATCH_NORM, (1,)), Node(rectifier, (2,)),
        conv(3, 6), Node(Op.BATCH_NORM, (4,)), Node(rectifier, (5,)),
        Node(Op.GLOBAL_POOL, (6,)), Node(Op.DENSE, (7,), {"units": 3}),
    ]  # fmt: skip
    return Architecture(8, 3, tuple(nodes)).canonical()[0]


def loud(architecture: Architecture) -> dict[str, Array]:
    """Weights that send a good part of the values over the ceiling."""
    weights = random_weights(architecture, np.random.default_rng(0))
    return {k: v * 6 if k in {"2.weight", "5.weight"} else v for k, v in weights.items()}


def test_the_module_and_the_exported_file_clip_at_six() -> None:
    architecture = clipped()
    weights = loud(architecture)
    pixels = np.random.default_rng(2).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    normalised = (pixels - np.array(NORMALIZATION.mean)) / np.array(NORMALIZATION.std)
    exported = build_onnx(
        architecture, weights, NORMALIZATION.mean, NORMALIZATION.std, labels=["a", "b", "c"],
        metadata={}, preprocess=resize_graph(8).SerializeToString(),
    )  # fmt: skip

    found = predict_probabilities(architecture, weights, NORMALIZATION, pixels, 1)
    of_the_file = OnnxModel(exported, 1).predict({"image": pixels}).values

    images = normalised.transpose(0, 3, 1, 2).astype(np.float32)
    logits = evaluate(architecture, weights, images)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(of_the_file, expected, atol=1e-5)
    assert gap(logits, evaluate(clipped(Op.RELU), weights, images)) > 0.1


def test_every_growing_move_keeps_the_function_of_values_over_the_ceiling() -> None:
    architecture, rng = clipped(), np.random.default_rng(1)
    weights, images = loud(architecture), random_images(architecture, 3, rng)
    before = evaluate(architecture, weights, images)
    moves = legal_moves(architecture, Limits(), GROWING)

    behind = {move.kind for move in moves if architecture.nodes[move.site].op is Op.RELU6}
    assert behind >= {
        MoveKind.DEEPEN, MoveKind.ADD_SKIP, MoveKind.CONCAT_SKIP, MoveKind.RESIDUAL,
        MoveKind.SEPARABLE,
    }  # fmt: skip
    for move in moves:
        child, weight_map = apply_move(architecture, move)
        assert gap(before, evaluate(child, weight_map(weights), images)) <= TOLERANCE, move


def test_the_moves_of_a_network_with_relu6_are_those_of_the_same_with_relu() -> None:
    assert legal_moves(clipped(), Limits()) == legal_moves(clipped(Op.RELU), Limits())


@pytest.mark.parametrize(("behind", "idle"), [(Op.RELU6, True), (Op.RELU, False)])
def test_a_relu6_is_idle_behind_what_never_exceeds_six(behind: Op, *, idle: bool) -> None:
    architecture = clipped(behind)

    assert is_idle(Op.RELU6, architecture, 3) is idle
    assert is_idle(Op.RELU6, architecture, 7) is idle  # the mean of such values
    assert is_idle(Op.RELU, architecture, 3)


def test_the_sum_of_two_may_exceed_six() -> None:
    nodes = [
        Node(Op.INPUT), conv(0, 3), Node(Op.RELU6, (1,)), Node(Op.ADD, (2, 2)),
        Node(Op.GLOBAL_POOL, (3,)), Node(Op.DENSE, (4,), {"units": 3}),
    ]  # fmt: skip
    architecture = Architecture(8, 3, tuple(nodes))

    assert not is_idle(Op.RELU6, architecture, 3)
    assert is_idle(Op.RELU, architecture, 3)


def test_a_removed_layer_takes_its_relu6_along_only_where_that_is_idle() -> None:
    nodes = [
        Node(Op.INPUT), conv(0, 3), Node(Op.RELU, (1,)), conv(2, 3), Node(Op.RELU6, (3,)),
        Node(Op.GLOBAL_POOL, (4,)), Node(Op.DENSE, (5,), {"units": 3}),
    ]  # fmt: skip

    def ops_left(architecture: Architecture, site: int) -> list[Op]:
        child, _ = apply_move(architecture, Move(MoveKind.REMOVE, site=site))
        return [node.op for node in child.nodes]

    assert ops_left(clipped(), 4).count(Op.RELU6) == 1
    assert ops_left(Architecture(8, 3, tuple(nodes)), 3).count(Op.RELU6) == 1


@pytest.mark.parametrize("rectifier", [Op.RELU, Op.RELU6])
def test_the_moments_behind_a_rectifier_are_those_of_a_rectified_gaussian(rectifier: Op) -> None:
    architecture = clipped(rectifier)
    gain = np.array([1.0, 3.0, 0.5, 8.0, 2.0, 1e-9], np.float32)
    bias = np.array([0.0, 2.0, 5.5, -4.0, 9.0, 7.0], np.float32)
    weights = {**loud(architecture), "2.weight": gain, "2.bias": bias}
    draws = np.random.default_rng(0).standard_normal((400_000, 6)) * gain + bias
    values = np.clip(draws, 0, 6 if rectifier is Op.RELU6 else None)

    moments = estimate_moments(architecture, weights, 3)

    np.testing.assert_allclose(moments.mean, values.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(moments.variance, values.var(axis=0), rtol=0.01, atol=0.01)


def test_the_kernel_tells_the_rectifiers_apart_and_counts_them_to_their_layer() -> None:
    assert "conv 3x3 /1 groups=1 batch_norm relu6" in layer_graph(clipped()).labels
    assert layer_graph(clipped()).inputs == layer_graph(clipped(Op.RELU)).inputs


def test_only_genotypes_with_relu6_have_the_second_schema() -> None:
    text = clipped().genotype()

    assert json.loads(text)["schema"] == 2
    assert Architecture.from_genotype(text).genotype() == text
    assert json.loads(clipped(Op.RELU).genotype())["schema"] == 1


def test_the_summary_is_silent_about_it() -> None:
    assert clipped().summary() == clipped(Op.RELU).summary()
