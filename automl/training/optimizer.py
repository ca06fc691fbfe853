"""The optimisers of trainings, and their state as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.optim import Optimizer

from automl.training.module import Network, stored_tensors

MOMENTUM = 0.9
PRETRAINED_RATE = 1 / 150  # of the learning rate of fresh weights, for AdamW
_DECAY_OF_SQUARES = 0.99  # trainings are short


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """Memory of an optimiser of earlier steps.

    Attributes:
        updates: steps made.
        momentum: mean gradients, by stored key; empty before the first step.
        squares: mean squared gradients, likewise; empty for SGD.
    """

    updates: int = 0
    momentum: Mapping[str, np.ndarray] = field(default_factory=dict)
    squares: Mapping[str, np.ndarray] = field(default_factory=dict)


def sgd(module: Network, weight_decay: float) -> torch.optim.SGD:
    """Return stochastic gradient descent with Nesterov momentum, fused into one kernel.

    Biases and batch norms are not decayed (arXiv:1812.01187, sec. 3.1).

    Args:
        module: whose parameters it changes, but for frozen ones.
        weight_decay: of the others.
    """
    groups = _groups(module, weight_decay)
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True, fused=True)


def adamw(module: Network, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW (arXiv:1711.05101), fused into one kernel.

    It trains networks whose batch norms keep their statistics: within the same time it comes
    further than SGD at any rate that SGD tolerates (docs/benchmarks.md).

    Args:
        module: whose parameters it changes, but for frozen ones.
        weight_decay: as for `sgd` at the learning rate of fresh weights; here a step decays as
            much at a rate lower by `PRETRAINED_RATE`.
    """
    groups = _groups(module, weight_decay / PRETRAINED_RATE)
    return torch.optim.AdamW(groups, lr=0.0, betas=(MOMENTUM, _DECAY_OF_SQUARES), fused=True)


def _groups(module: Network, weight_decay: float) -> list[dict[str, object]]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def extract_state(optimizer: Optimizer, module: Network, updates: int) -> OptimizerState:
    """Return copies of what an optimiser of the module remembers.

    Args:
        optimizer: made by `sgd` or `adamw`.
        module: its module.
        updates: steps that it has made.
    """
    momentum, squares = _names(optimizer)

    def copies(name: str) -> dict[str, np.ndarray]:
        return {
            key: np.array(optimizer.state[tensor][name].cpu().numpy(), order="C")
            for key, tensor in stored_tensors(module).items()
            if tensor in optimizer.state
        }

    return OptimizerState(updates, copies(momentum), copies(squares) if squares else {})


def load_state(optimizer: Optimizer, module: Network, state: OptimizerState) -> None:
    """Let an optimiser go on from what another one remembered; not if that was of another kind.

    Args:
        optimizer: made by `sgd` or `adamw`, without a step.
        module: its module.
        state: of the other one.
    """
    tensors = stored_tensors(module)
    momentum, squares = _names(optimizer)
    if bool(squares) != bool(state.squares):
        return
    for name, arrays in ((momentum, state.momentum), (squares, state.squares)):
        for key, array in arrays.items():
            parameter = tensors[key]
            buffer = torch.zeros_like(parameter).detach()
            buffer.copy_(torch.from_numpy(np.array(array)))
            optimizer.state[parameter][name] = buffer
            if squares:
                steps = torch.tensor(float(state.updates), device=parameter.device)
                optimizer.state[parameter]["step"] = steps


def _names(optimizer: Optimizer) -> tuple[str, str]:
    """Return what torch calls momentum and squares; "" for those that there are none of."""
    if isinstance(optimizer, torch.optim.SGD):
        return "momentum_buffer", ""
    return "exp_avg", "exp_avg_sq"
