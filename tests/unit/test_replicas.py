from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from automl.training.initialization import initial_weights
from automl.training.module import Network
from automl.training.problem import Budget
from automl.training.replicas import Replicas
from tests.architectures import short_chain
from tests.morphs import module_of
from tests.trainings import problem

BATCH = 64
RNG = np.random.default_rng(0)
IMAGES = torch.from_numpy(RNG.integers(0, 256, (BATCH, 3, 8, 8), dtype=np.uint8))
LABELS = torch.from_numpy(RNG.integers(0, 4, BATCH))


def network(dropout: float = 0.0) -> Network:
    architecture = short_chain(dropout)
    return module_of(architecture, initial_weights(architecture, (1,)))


def evaluating(module: Network) -> Network:
    """Return the module with norms that keep their statistics."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    return module


def replicas(module: Network, threads: int, micro_batch: int = BATCH) -> closing[Replicas]:
    budget = Budget(epochs=1, batch_size=BATCH, patience=0)
    task = replace(problem(), budget=budget, threads=threads)
    return closing(Replicas(module, task, micro_batch))


def gradients(module: Network) -> list[torch.Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def test_two_copies_have_the_gradients_of_one() -> None:
    one, two = evaluating(network()), evaluating(network())
    with replicas(one, 1) as alone, replicas(two, 2) as together:
        loss = alone.backward(IMAGES, LABELS)
        same = together.backward(IMAGES, LABELS)

    torch.testing.assert_close(same, loss)
    assert len(gradients(one)) == 5
    for found, expected in zip(gradients(two), gradients(one), strict=True):
        torch.testing.assert_close(found, expected)


def test_copies_see_what_the_optimiser_has_changed() -> None:
    module = evaluating(network())
    with replicas(module, 2) as together:
        before = together.backward(IMAGES, LABELS)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.grad = None
                parameter.mul_(0.5)
        after = together.backward(IMAGES, LABELS)
    with replicas(module, 1) as alone:
        expected = alone.backward(IMAGES, LABELS)

    torch.testing.assert_close(after, expected)
    assert not torch.isclose(after, before)


def test_running_statistics_are_the_means_of_all_copies() -> None:
    module, halves = network(), [network(), network()]
    with replicas(module, 2) as together:
        together.backward(IMAGES, LABELS)
    for half, images in zip(halves, torch.split(IMAGES, BATCH // 2), strict=True):
        half(images)

    own, *others = (dict(one.named_buffers()) for one in (module, *halves))
    for name in ("nodes.2.running_mean", "nodes.2.running_var"):
        mean = torch.stack([buffers[name] for buffers in others]).mean(dim=0)
        torch.testing.assert_close(own[name], mean)


def test_a_step_with_dropout_repeats_and_its_copies_lose_different_values() -> None:
    def lost(seed: int) -> list[list[bool]]:
        masks: list[list[bool]] = []
        module = evaluating(network(dropout=0.5))
        dropout = module.nodes["5"]
        dropout.register_forward_hook(lambda *values: masks.append((values[2] == 0).tolist()))
        with replicas(module, 2) as together:
            together.seed(seed)
            together.backward(IMAGES, LABELS)
        return sorted(masks)

    assert lost(3) == lost(3)
    assert lost(3) != lost(4)
    assert len(lost(3)) == 2
    assert lost(3)[0] != lost(3)[1]


@pytest.mark.parametrize("count", [2, 3, 33, 63])
def test_a_short_batch_is_left_to_fewer_copies(count: int) -> None:
    module, same = network(), network()
    with replicas(module, 2) as together, replicas(same, 1) as alone:
        found = together.backward(IMAGES[:count], LABELS[:count])
        expected = alone.backward(IMAGES[:count], LABELS[:count])

    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("micro_batch", [8, 16, 32])
def test_where_memory_is_short_one_copy_works_alone_on_smaller_parts(micro_batch: int) -> None:
    module, same = evaluating(network()), evaluating(network())
    seen: list[int] = []
    module.register_forward_hook(lambda _module, read, _output: seen.append(len(read[0])))
    before = threading.active_count()
    with replicas(module, 2, micro_batch) as short, replicas(same, 1) as alone:
        short.backward(IMAGES, LABELS)
        assert threading.active_count() == before
        alone.backward(IMAGES, LABELS)

    assert seen == [micro_batch] * (BATCH // micro_batch)
    for found, expected in zip(gradients(module), gradients(same), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_copy_that_fails_is_reported_when_none_works_any_more() -> None:
    before = threading.active_count()
    with replicas(network(), 2) as together:
        with pytest.raises(IndexError, match="out of bounds"):
            together.backward(IMAGES, torch.full_like(LABELS, 9))
        assert together.backward(IMAGES, LABELS).isfinite()
    assert threading.active_count() == before
