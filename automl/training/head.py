"""Fitting the last dense layer alone: a logistic regression on what the other layers compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from automl.training.module import Network
from automl.training.precision import Precision, autocast
from automl.training.rows import Batch

HEAD_DECAY = 3e-2  # half of it times the squared weights of standardised features is added
_MOST_ROWS = 4096
_ITERATIONS = 100
_LEAST_STD = 1e-6  # of a feature that says something


def never() -> bool:
    """Return that nothing has to stop."""
    return False


def fit_head(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    should_stop: Callable[[], bool] = never,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the dense layer of the multinomial logistic regression of labels on features.

    Features are standardised, and the layer undoes that: it reads them as they are. Full-batch
    L-BFGS from zeros; equal arguments give equal layers on one machine.

    Args:
        features: float32 [n, d].
        labels: int64 [n], below `classes`.
        classes: number of classes, some of which may have no row.
        should_stop: asked at every evaluation of the loss.

    Returns:
        Weight, float32 [classes, d], and bias, float32 [classes]; None if it had to stop.
    """
    read, target = torch.from_numpy(features), torch.from_numpy(labels)
    fitted = _fit(read, target, classes, should_stop)
    return None if fitted is None else (fitted[0].numpy(), fitted[1].numpy())


def head_rows(count: int) -> np.ndarray:
    """Return which of so many rows a head is fitted to: all, or many evenly spaced ones, int64."""
    return np.linspace(0, count - 1, min(count, _MOST_ROWS)).round().astype(np.int64)


def fit_network_head(
    module: Network,
    rows: Iterable[Batch],
    should_stop: Callable[[], bool] = never,
    precision: Precision = Precision.FLOAT32,
) -> float | None:
    """Fit the last dense layer of a network in place.

    What it reads is computed in evaluation mode, without augmentation.

    Args:
        module: the network, on the rows' device.
        rows: see `head_rows`.
        should_stop: asked before every batch and at every evaluation of the loss; where it says so,
            the network stays as it is.
        precision: what the other layers compute in.

    Returns:
        Mean loss of the rows (nats per example); None if it had to stop.
    """
    found = features_of(module, rows, should_stop, precision)
    if found is None:
        return None
    features, labels = found
    layer = last_layer(module)
    fitted = _fit(features, labels, layer.out_features, should_stop)
    if fitted is None:
        return None
    with torch.no_grad():
        layer.weight.copy_(fitted[0])
        layer.bias.copy_(fitted[1])
        return float(nn.functional.cross_entropy(layer(features), labels))


def features_of(
    module: Network,
    rows: Iterable[Batch],
    should_stop: Callable[[], bool] = never,
    precision: Precision = Precision.FLOAT32,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return what the last dense layer reads, float32 (n, d), and the labels; None if stopped.

    Args:
        module: the network, on the rows' device; it is put in evaluation mode for this.
        rows: one batch or more.
        should_stop: asked before every batch.
        precision: what it computes in.
    """
    parts: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []

    def keep(_layer: nn.Module, read: tuple[torch.Tensor, ...]) -> None:
        parts.append(read[0].float())

    was_training = module.training
    module.eval()
    hook = last_layer(module).register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            for batch in rows:
                if should_stop():
                    return None
                with autocast(batch.labels.device.type, precision):
                    module(batch.images.permute(0, 3, 1, 2))
                labels.append(batch.labels)
    finally:
        hook.remove()
        module.train(was_training)
    return torch.cat(parts), torch.cat(labels)


def last_layer(module: Network) -> nn.Linear:
    """Return the dense layer of the logits."""
    layer = list(module.nodes.values())[-1]
    assert isinstance(layer, nn.Linear)
    return layer


class _StoppedError(Exception):
    """The outside asked to stop in the middle of an optimisation."""


def _fit(
    features: torch.Tensor, labels: torch.Tensor, classes: int, should_stop: Callable[[], bool]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    mean = features.mean(dim=0)
    std = features.std(dim=0, correction=0).clamp_min(_LEAST_STD)
    scaled = (features - mean) / std
    weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        if should_stop():
            raise _StoppedError
        optimizer.zero_grad()
        logits = nn.functional.linear(scaled, weight, bias)
        loss = nn.functional.cross_entropy(logits, labels) + HEAD_DECAY / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    try:
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    except _StoppedError:
        return None
    with torch.no_grad():
        weight, bias = weight / std, bias - (weight / std) @ mean
    return weight, bias
