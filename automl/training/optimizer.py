"""The optimiser of trainings."""

from __future__ import annotations

import torch

from automl.training.module import Network

MOMENTUM = 0.9


def sgd(module: Network, weight_decay: float) -> torch.optim.SGD:
    """Return stochastic gradient descent with Nesterov momentum, fused into one kernel.

    Biases and batch norms are not decayed (arXiv:1812.01187, sec. 3.1).

    Args:
        module: whose parameters it changes, but for frozen ones.
        weight_decay: of the others.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True, fused=True)
