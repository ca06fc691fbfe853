"""Averaged weights: what a training is judged by before its learning rate has come down."""

from __future__ import annotations

import torch

from automl.training.module import Network, stored_tensors

_HORIZON_SHARE = 0.03  # of a training's steps
_SHORTEST_HORIZON = 5.0  # steps


class WeightAverage:
    """An exponential moving average of a module's tensors (Polyak and Juditsky, 1992).

    Running statistics of batch norms are averaged as well: they belong to the averaged weights
    about as well as to the latest, both being means over the same steps.

    Args:
        module: whose weights are averaged.
        average: a module of the same architecture, which holds the average; it starts from what it
            holds already.
    """

    def __init__(self, module: Network, average: Network) -> None:
        self._sources = [tensor.detach() for tensor in stored_tensors(module).values()]
        self._targets = [tensor.detach() for tensor in stored_tensors(average).values()]

    def update(self, done: int, progress: float) -> None:
        """Take in the module's present values.

        The average reaches back over a 33rd of the training's steps.

        Args:
            done: steps made, the last one included.
            progress: the share of the training that was done before the last step.
        """
        horizon = _SHORTEST_HORIZON
        if progress > 0:
            horizon = max(horizon, _HORIZON_SHARE * (done - 1) / progress)
        weight = max(1 / horizon, 1 / (1 + done))  # the first steps count equally
        torch._foreach_lerp_(self._targets, self._sources, weight)
