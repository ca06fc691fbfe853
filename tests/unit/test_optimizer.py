from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.optim import Optimizer

from automl.training.initialization import initial_weights
from automl.training.module import Network, extract_weights, load_weights
from automl.training.optimizer import (
    PRETRAINED_RATE,
    OptimizerState,
    adamw,
    extract_state,
    load_state,
    sgd,
)
from tests.architectures import short_chain
from tests.morphs import module_of

DECAY = 5e-4
MAKERS = [sgd, adamw]


def network() -> Network:
    architecture = short_chain()
    return module_of(architecture, initial_weights(architecture, (1,)))


def step(module: Network, optimizer: Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


@pytest.mark.parametrize("maker", MAKERS)
def test_an_optimiser_goes_on_from_what_another_one_remembered(maker: type) -> None:
    module, other = network(), network()
    optimizer = maker(module, DECAY)
    for seed in range(3):
        step(module, optimizer, seed)
    remembered = extract_state(optimizer, module, updates=3)

    load_weights(other, extract_weights(module))
    successor = maker(other, DECAY)
    load_state(successor, other, remembered)
    step(module, optimizer, 3)
    step(other, successor, 3)

    for key, array in extract_weights(module).items():
        np.testing.assert_array_equal(extract_weights(other)[key], array, err_msg=key)
    assert bool(remembered.squares) == (maker is adamw)


def test_an_optimiser_without_a_step_remembers_nothing() -> None:
    module = network()

    assert extract_state(adamw(module, DECAY), module, updates=0) == OptimizerState()


def test_what_an_optimiser_of_another_kind_remembered_is_not_used() -> None:
    module = network()
    optimizer = sgd(module, DECAY)
    step(module, optimizer, 0)
    remembered = extract_state(optimizer, module, updates=1)

    successor = adamw(module, DECAY)
    load_state(successor, module, remembered)

    assert not successor.state
    step(module, successor, 1)


def test_a_step_decays_as_much_with_either_optimiser() -> None:
    factors = []
    for maker, rate in ((sgd, 0.06), (adamw, 0.06 * PRETRAINED_RATE)):
        module = network()
        optimizer = maker(module, DECAY)
        before = extract_weights(module)["1.weight"]
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        factors.append(extract_weights(module)["1.weight"] / before)

    # Nesterov momentum takes 1 + 0.9 times the first gradient
    np.testing.assert_allclose(1 - factors[0], 1.9 * (1 - factors[1]), rtol=1e-2)
