"""Recipes of trainings by the origin of weights: fresh, inherited or pretrained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn
from torch.optim import Optimizer

from automl.morphism.resolution import reads_resolution
from automl.training.initialization import initial_weights, whiten
from automl.training.module import Network, Weights, build_module, load_weights, place
from automl.training.optimizer import PRETRAINED_RATE, adamw, sgd
from automl.training.problem import FitProblem

_WARM_RATE = 0.5  # of the peak learning rate that fresh weights get
_LARGEST_PRETRAINED = 5e-4  # rate of networks that keep their norms; 1e-3 undoes what they know
_POOL = 2
_SMALLEST_POOLED_PX = 24  # images are not pooled to less


def fresh_weights(problem: FitProblem) -> Weights:
    """Return the weights of a training that starts from nothing."""
    weights = initial_weights(problem.architecture, problem.seed)
    whiten(weights, problem.architecture, problem.train.images, problem.normalization, problem.seed)
    return weights


def built_module(problem: FitProblem, weights: Mapping[str, np.ndarray]) -> Network:
    """Return the problem's network with weights, on its device, with its frozen layers."""
    dropout = problem.hyperparameters.get("dropout")
    module = build_module(problem.architecture, problem.normalization, dropout)
    load_weights(module, weights)
    place(module, problem.device, problem.frozen or 0)
    return module


def set_mode(module: Network, problem: FitProblem) -> None:
    """Put a module in the mode that it trains in."""
    module.train()
    if problem.keeps_norms:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.eval()


def optimizer_for(module: Network, problem: FitProblem) -> Optimizer:
    """Return the optimiser of a module's trained parameters."""
    optimizer = adamw if problem.keeps_norms else sgd
    return optimizer(module, problem.hyperparameters["weight_decay"])


def peak_rate(problem: FitProblem) -> float:
    """Return the largest learning rate of the training."""
    peak = problem.hyperparameters["learning_rate"]
    if problem.keeps_norms:
        return min(PRETRAINED_RATE * peak, _LARGEST_PRETRAINED)
    return _WARM_RATE * peak if problem.is_warm else peak


def first_resolution(problem: FitProblem) -> int:
    """Return the resolution that the training begins with, in pixels."""
    full = problem.architecture.input_size
    small = full // _POOL
    is_useful = not problem.is_warm and full % _POOL == 0 and small >= _SMALLEST_POOLED_PX
    return small if is_useful and reads_resolution(problem.architecture, small) else full
