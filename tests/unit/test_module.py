from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from automl.errors import DataError, TrainingError
from automl.morphism.architecture import Architecture, Node, Op
from automl.training.inference import measure_latency_ms, predict_probabilities
from automl.training.initialization import initial_weights
from automl.training.module import (
    Normalization,
    build_module,
    extract_weights,
    load_weights,
)
from tests.architectures import every_op

NORMALIZATION = Normalization((100.0, 120.0, 140.0), (50.0, 60.0, 70.0))


def images(count: int, size: int = 11) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_every_layer_has_the_shape_that_the_architecture_says() -> None:
    architecture = every_op()
    module = build_module(architecture, NORMALIZATION).eval()
    found: dict[str, tuple[int, ...]] = {}
    for key, layer in module.nodes.items():
        layer.register_forward_hook(
            lambda _layer, _inputs, output, key=key: found.update({key: tuple(output.shape[1:])})
        )

    logits = module(torch.from_numpy(images(5)).permute(0, 3, 1, 2))

    assert logits.shape == (5, 4)
    assert logits.dtype == torch.float32
    assert [found[str(index)] for index in range(len(found))] == list(architecture.shapes())


def test_the_stored_arrays_are_those_that_the_architecture_names() -> None:
    architecture = every_op()
    module = build_module(architecture, NORMALIZATION)

    weights = extract_weights(module)

    assert {key: array.shape for key, array in weights.items()} == architecture.weight_shapes()
    assert all(array.dtype == np.float32 for array in weights.values())
    learned = sum(parameter.numel() for parameter in module.parameters())
    assert learned == architecture.parameters


def test_the_first_node_normalises_each_channel() -> None:
    module = build_module(every_op(), NORMALIZATION)
    image = torch.tensor([150, 120, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)

    normalised = module.nodes["0"](image)

    np.testing.assert_allclose(normalised.flatten(), [1.0, 0.0, -2.0])


def test_weights_come_back_as_they_went_in() -> None:
    architecture = every_op()
    module = build_module(architecture, NORMALIZATION)
    weights = initial_weights(architecture, (3, 4))
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's hints lack it

    load_weights(module, weights)
    found = extract_weights(module)

    assert found.keys() == weights.keys()
    for key, array in weights.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].flags.c_contiguous


def test_weights_of_another_architecture_are_refused() -> None:
    module = build_module(every_op(), NORMALIZATION)
    weights = initial_weights(every_op(), (0,))

    with pytest.raises(TrainingError, match=r"do not belong to this architecture: 16\.bias"):
        load_weights(module, {key: weights[key] for key in weights if key != "16.bias"})
    with pytest.raises(TrainingError, match=r"16\.bias has shape \(5,\), .* needs \(4,\)"):
        load_weights(module, weights | {"16.bias": np.zeros(5, np.float32)})


def plain() -> Architecture:
    flat = Node(Op.FLATTEN, (0,))
    return Architecture(11, 3, (Node(Op.INPUT), flat, Node(Op.DENSE, (1,), {"units": 4})))


def test_dropout_is_at_its_nodes_and_without_any_in_front_of_the_logits() -> None:
    at_nodes = build_module(every_op(), NORMALIZATION, dropout=0.125)
    in_front = build_module(plain(), NORMALIZATION, dropout=0.125)

    assert [layer.p for layer in at_nodes.modules() if isinstance(layer, torch.nn.Dropout)] == [
        0.125
    ]
    assert [layer.p for layer in in_front.modules() if isinstance(layer, torch.nn.Dropout)] == [
        0.125
    ]
    assert extract_weights(in_front).keys() == plain().weight_shapes().keys()


def test_dropout_in_front_of_the_logits_acts_in_training_alone() -> None:
    rows = torch.from_numpy(images(64)).permute(0, 3, 1, 2)
    without = build_module(plain(), NORMALIZATION)
    module = build_module(plain(), NORMALIZATION, dropout=0.5)
    load_weights(without, initial_weights(plain(), (0,)))
    load_weights(module, initial_weights(plain(), (0,)))
    torch.manual_seed(0)

    with torch.no_grad():
        assert not torch.allclose(module(rows), without(rows))
        torch.testing.assert_close(module.eval()(rows), without.eval()(rows))


@pytest.mark.parametrize("dropout", [None, 0.0])
def test_without_a_rate_nothing_is_dropped_in_front_of_the_logits(dropout: float | None) -> None:
    rows = torch.from_numpy(images(8)).permute(0, 3, 1, 2)
    module = build_module(plain(), NORMALIZATION, dropout)

    with torch.no_grad():
        torch.testing.assert_close(module(rows), module(rows))


def test_a_normalisation_that_divides_by_zero_is_refused() -> None:
    with pytest.raises(DataError, match="standard deviations"):
        Normalization((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))
    with pytest.raises(TrainingError, match="normalisation has 1 channels"):
        build_module(every_op(), Normalization((0.0,), (1.0,)))


def test_probabilities_do_not_depend_on_the_batch() -> None:
    architecture = every_op()
    weights = initial_weights(architecture, (0,))
    many = images(515)

    together = predict_probabilities(architecture, weights, NORMALIZATION, many, 1)
    alone = predict_probabilities(architecture, weights, NORMALIZATION, many[-2:], 1)
    none = predict_probabilities(architecture, weights, NORMALIZATION, many[:0], 1)

    assert together.dtype == np.float32
    assert none.shape == (0, 4)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(together[-2:], alone, rtol=1e-4, atol=1e-6)


def test_measuring_the_latency_keeps_the_thread_count() -> None:
    before = torch.get_num_threads()

    latency_ms = measure_latency_ms(every_op(), initial_weights(every_op(), (0,)), NORMALIZATION)

    assert 0 < latency_ms < 1000
    assert torch.get_num_threads() == before


def test_a_strided_pointwise_convolution_of_few_channels_trains_without_damage() -> None:
    # in a process of its own: what it once did was to damage the heap
    code = """
import torch
from automl.morphism.architecture import Architecture, Node, Op
from automl.training.module import Normalization, build_module

conv = {"channels": 48, "kernel": 1, "stride": 2, "groups": 1, "bias": 0}
nodes = (
    Node(Op.INPUT), Node(Op.CONV, (0,), conv), Node(Op.GLOBAL_POOL, (1,)),
    Node(Op.DENSE, (2,), {"units": 10}),
)
module = build_module(Architecture(8, 3, nodes), Normalization((100.0,) * 3, (50.0,) * 3))
module.to(memory_format=torch.channels_last)
images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
for _ in range(120):
    module(images.contiguous(memory_format=torch.channels_last)).sum().backward()
expected = torch.nn.functional.conv2d(
    module.nodes["0"](images), module.nodes["1"].weight, stride=2
)
torch.testing.assert_close(module.nodes["1"](module.nodes["0"](images)), expected)
"""
    environment = {**os.environ, "MALLOC_CHECK_": "3", "OMP_NUM_THREADS": "1"}

    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert found.returncode == 0, found.stderr
