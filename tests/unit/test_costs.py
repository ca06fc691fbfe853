"""What architectures are predicted to cost, against what torch and the clock say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.costs import WORK_PER_BYTE, DeviceFactors, training_bytes, training_work
from automl.morphism.moves import Limits, random_move
from automl.morphism.nodes import conv
from automl.morphism.seeds import seed_architectures
from automl.training.module import initial_weights, stored_tensors
from tests.morphs import module_of, random_network

BATCH = 6


def morphs(count: int, size: int) -> list[Architecture]:
    """Return architectures up to eight random moves away from the seeds."""
    rng, found = np.random.default_rng(size), list[Architecture]()
    for number in range(count):
        architecture = seed_architectures(size, 10)[number % 3]
        for _ in range(1 + number % 8):
            drawn = random_move(architecture, Limits(), rng)
            assert drawn is not None
            architecture = drawn[1]
        found.append(architecture)
    return found


def saved_bytes(architecture: Architecture) -> int:
    """Return the bytes that autograd keeps in a forward pass, parameters aside."""
    module = module_of(architecture, initial_weights(architecture, (0,)))
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # as in training
    own = {tensor.untyped_storage().data_ptr() for tensor in stored_tensors(module).values()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    size, channels = architecture.input_size, architecture.input_channels
    images = torch.zeros((BATCH, size, size, channels), dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = module(images.permute(0, 3, 1, 2))
        cross_entropy(logits, torch.zeros(BATCH, dtype=torch.int64), label_smoothing=0.1)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("size", [8, 32])
def test_the_activations_of_a_training_are_what_torch_saves(size: int) -> None:
    for architecture in morphs(20, size):
        counted = training_bytes(architecture, BATCH) - training_bytes(architecture, 0)

        assert counted == pytest.approx(saved_bytes(architecture), rel=0.02)


def test_so_are_those_of_networks_with_every_kind_of_layer() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        architecture = random_network(rng, blocks=6)
        counted = training_bytes(architecture, BATCH) - training_bytes(architecture, 0)

        # small widths, so that what is kept for each channel and each pass weighs more
        assert counted == pytest.approx(saved_bytes(architecture), rel=0.1)


def test_a_strided_pointwise_convolution_keeps_what_it_reads_only() -> None:
    nodes = (Node(Op.INPUT), conv(0, 4, 1, stride=2), Node(Op.GLOBAL_POOL, (1,)))
    architecture = Architecture(8, 3, (*nodes, Node(Op.DENSE, (2,), {"units": 2})))

    per_image = training_bytes(architecture, 1) - training_bytes(architecture, 0)

    assert per_image == 4 * (3 * 4 * 4 + 4 + 2)  # a quarter of the image, its mean, the loss
    assert saved_bytes(architecture) == pytest.approx(BATCH * per_image, rel=0.1)


def test_weights_are_counted_with_gradients_and_momentum() -> None:
    for architecture in seed_architectures(8, 10):
        arrays = architecture.weight_shapes()
        stored = sum(int(np.prod(shape)) for shape in arrays.values())

        expected = 4 * (stored + 2 * architecture.parameters)
        assert training_bytes(architecture, 0) == expected


def test_the_work_is_three_forward_passes_and_the_bytes_they_move() -> None:
    architecture = seed_architectures(8, 10)[0]

    moved = WORK_PER_BYTE * architecture.activation_bytes
    assert training_work(architecture) == 3 * (architecture.flops + moved)


def test_a_latency_adds_up_multiply_adds_bytes_and_layers() -> None:
    architecture = seed_architectures(8, 10)[0]
    flops, size_bytes = architecture.flops, architecture.activation_bytes

    assert DeviceFactors(20, 0, 0).latency_ms(architecture) == 20e-9 * flops
    assert DeviceFactors(0, 300, 0).latency_ms(architecture) == pytest.approx(300e-9 * size_bytes)
    nodes = len(architecture.nodes)
    assert DeviceFactors(0, 0, 15_000).latency_ms(architecture) == pytest.approx(15e-3 * nodes)
