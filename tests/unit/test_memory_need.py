"""What trainings are predicted to hold in memory, against what torch holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.memory import MemoryNeed, Precision, TrainingPlan, memory_need
from automl.morphism.moves import Limits, random_move
from automl.morphism.nodes import conv
from automl.morphism.pretrained import frozen_of_descendant, lite0
from automl.morphism.seeds import seed_architectures
from automl.training.initialization import initial_weights
from automl.training.module import Network, place, stored_tensors
from tests.morphs import module_of, random_network

BATCH = 6
SMALL = Limits(macs=2**26)  # so that 200 of them are trained in little time
PLAN = TrainingPlan(BATCH)
BFLOAT16 = TrainingPlan(BATCH, precision=Precision.BFLOAT16)


def morphs(count: int, size: int) -> Iterator[Architecture]:
    """Yield architectures up to eight random moves away from the seeds."""
    rng = np.random.default_rng(size)
    for number in range(count):
        architecture = seed_architectures(size, 10)[number % 3]
        for _ in range(1 + number % 8):
            drawn = random_move(architecture, SMALL, rng)
            architecture = architecture if drawn is None else drawn[1]
        yield architecture


def module_for(architecture: Architecture) -> Network:
    """Return the module as a training has it."""
    module = module_of(architecture, initial_weights(architecture, (0,)))
    place(module, "cpu")
    frozen = frozen_of_descendant(architecture)
    if frozen is not None:
        for layer in list(module.nodes.values())[:frozen]:
            layer.requires_grad_(requires_grad=False)
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
    return module


def forward(
    module: Network, architecture: Architecture, precision: Precision, batch: int = BATCH
) -> torch.Tensor:
    size, channels = architecture.input_size, architecture.input_channels
    images = torch.zeros((batch, size, size, channels), dtype=torch.uint8)
    casting: AbstractContextManager[object] = nullcontext()
    if precision is Precision.BFLOAT16:
        casting = torch.autocast("cpu", dtype=torch.bfloat16)
    with casting:
        logits = module(images.permute(0, 3, 1, 2))
    labels = torch.zeros(batch, dtype=torch.int64)
    return cross_entropy(logits.float(), labels, label_smoothing=0.1)


def saved_bytes(architecture: Architecture, precision: Precision = Precision.FLOAT32) -> int:
    """Return the bytes that autograd keeps in a forward pass, parameters aside."""
    module = module_for(architecture)
    own = {tensor.untyped_storage().data_ptr() for tensor in stored_tensors(module).values()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward(module, architecture, precision)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("size", [8, 28, 32, 64])
def test_saved_activations_are_what_torch_saves(size: int) -> None:
    architectures = list(morphs(50, size))

    counted = [memory_need(a, PLAN).activations for a in architectures]

    assert len({a.digest for a in architectures}) > 40
    np.testing.assert_allclose(counted, [saved_bytes(a) for a in architectures], rtol=0.1)


def test_so_are_those_of_networks_with_every_kind_of_layer() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        architecture = random_network(rng, blocks=6)
        counted = memory_need(architecture, PLAN).activations

        # small widths, so that what is kept for each channel and each pass weighs more
        assert counted == pytest.approx(saved_bytes(architecture), rel=0.1)


@pytest.mark.parametrize("size", [8, 32])
def test_under_autocast_they_are_narrower_and_weights_are_copied(size: int) -> None:
    for architecture in morphs(24, size):
        counted = memory_need(architecture, BFLOAT16).activations

        assert counted == pytest.approx(saved_bytes(architecture, Precision.BFLOAT16), rel=0.1)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("size", [32, 64])
def test_frozen_layers_of_a_pretrained_network_save_nothing(
    size: int, precision: Precision
) -> None:
    rng = np.random.default_rng(size)
    architecture = lite0(size, 10).architecture
    drawn = random_move(architecture, Limits(), rng)
    while drawn is None or frozen_of_descendant(drawn[1]) is None:
        drawn = random_move(architecture, Limits(), rng)

    for one in (architecture, drawn[1]):
        counted = memory_need(one, TrainingPlan(BATCH, precision=precision)).activations

        assert counted == pytest.approx(saved_bytes(one, precision), rel=0.1)


def test_a_pretrained_network_has_gradients_of_trained_layers_and_two_moments() -> None:
    architecture = lite0(32, 10).architecture
    trained = sum(
        parameter.numel()
        for parameter in module_for(architecture).parameters()
        if parameter.requires_grad
    )

    need = memory_need(architecture, TrainingPlan(0))

    assert trained < architecture.parameters
    assert (need.gradients, need.optimizer) == (4 * trained, 8 * trained)


def test_every_replica_has_gradients_and_narrow_weights_of_its_own() -> None:
    architecture = seed_architectures(8, 10)[0]
    alone = memory_need(architecture, BFLOAT16)
    two = memory_need(architecture, replace(BFLOAT16, replicas=2))

    weights = sum(
        2 * facts.parameters
        for node, facts in zip(architecture.nodes, architecture.facts, strict=True)
        if node.op in {Op.CONV, Op.DENSE}
    )
    assert two.gradients == 2 * alone.gradients
    assert two.activations - alone.activations == weights
    assert two.optimizer == alone.optimizer


def test_a_strided_pointwise_convolution_keeps_what_it_reads_only() -> None:
    nodes = (Node(Op.INPUT), conv(0, 4, 1, stride=2), Node(Op.GLOBAL_POOL, (1,)))
    architecture = Architecture(8, 3, (*nodes, Node(Op.DENSE, (2,), {"units": 2})))

    per_image = memory_need(architecture, TrainingPlan(1)).activations

    assert per_image == 4 * (3 * 4 * 4 + 4 + 2)  # a quarter of the image, its mean, the loss
    assert saved_bytes(architecture) == pytest.approx(BATCH * per_image, rel=0.1)


def test_weights_are_counted_with_gradients_momentum_and_two_copies() -> None:
    for architecture in seed_architectures(8, 10):
        arrays = architecture.weight_shapes()
        stored = 4 * sum(int(np.prod(shape)) for shape in arrays.values())
        learned = 4 * architecture.parameters

        assert memory_need(architecture, TrainingPlan(0)) == MemoryNeed(
            weights=stored, gradients=learned, optimizer=learned, copies=2 * stored,
            activations=0, workspace=0, dataset=0,
        )  # fmt: skip
        assert memory_need(architecture, TrainingPlan(0)).total == 3 * stored + 2 * learned


def test_the_images_on_the_device_and_a_large_evaluation_add_to_the_peak() -> None:
    architecture = seed_architectures(8, 10)[0]
    alone = memory_need(architecture, PLAN)
    wide = memory_need(architecture, TrainingPlan(BATCH, evaluation_batch=512, dataset_bytes=777))

    assert wide.dataset == 777
    assert wide.activations == alone.activations
    largest = 4 * max(facts.elements for facts in architecture.facts)
    held = wide.activations + wide.workspace
    assert 512 * largest < held < 512 * architecture.activation_bytes


_weak: Any = StorageWeakRef  # torch leaves it untyped


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors between operations.

    What a kernel takes and gives back within one operation is not among them: processors differ in
    that, and `memory_need` does not count it.

    Attributes:
        peak_bytes: the most that there were at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        self.peak_bytes: int = 0
        self._held: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._held[storage._cdata] = _weak(storage), storage.nbytes()
        self._held = {key: held for key, held in self._held.items() if not held[0].expired()}
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._held.values()))
        return found


def peak_bytes(architecture: Architecture) -> int:
    """Return the most bytes that tensors had during two steps, weights included."""
    module = module_for(architecture)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    with Alive() as alive:
        for _ in range(2):
            loss = forward(module, architecture, Precision.FLOAT32, batch=32)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            optimizer.step()
    return int(alive.peak_bytes)


@pytest.mark.parametrize("size", [8, 32])
def test_the_peak_is_what_tensors_have(size: int) -> None:
    plan = TrainingPlan(batch_size=32)
    for architecture in morphs(9, size):
        need = memory_need(architecture, plan)

        # plain steps have no further copies of the weights
        assert need.total - need.copies == pytest.approx(peak_bytes(architecture), rel=0.15)
