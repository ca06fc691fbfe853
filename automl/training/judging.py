"""Evaluation of weights on rows that they have not been trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from automl.domain.training import StopReason
from automl.training.examples import Examples
from automl.training.inference import BATCH_ROWS, logits_of
from automl.training.module import Network
from automl.training.precision import Precision, autocast
from automl.training.rows import as_tensor

_ASKED_EVERY = 4  # batches


class JudgedRows:
    """Rows on the device that weights are judged by.

    Args:
        examples: the rows, one or more.
        device: where the network is.
        precision: what it computes in, as in training.
    """

    def __init__(self, examples: Examples, device: torch.device, precision: Precision) -> None:
        self._precision = precision
        self._images = as_tensor(examples.images).to(device)
        self._labels = as_tensor(examples.labels).to(device)

    def evaluate(
        self, module: Network, resolution: int, should_stop: Callable[[], StopReason | None]
    ) -> tuple[float, float] | StopReason:
        """Return log loss (nats per example) and accuracy, or why they were not computed.

        Args:
            module: the network.
            resolution: height and width in pixels at which it sees the images.
            should_stop: asked now and then.
        """
        parts: list[torch.Tensor] = []
        for index, batch in enumerate(torch.split(self._images, BATCH_ROWS)):
            if index and index % _ASKED_EVERY == 0 and (reason := should_stop()) is not None:
                return reason
            with autocast(batch.device.type, self._precision):
                parts.append(logits_of(module, at_resolution(batch, resolution)))
        logits = torch.cat(parts)
        loss = float(nn.functional.cross_entropy(logits, self._labels))
        return loss, float((logits.argmax(dim=1) == self._labels).double().mean())


def at_resolution(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return images (B, S, S, C) as (B, C, size, size), averaged where that is smaller."""
    images = images.permute(0, 3, 1, 2)  # stays in place: channels last
    if images.shape[2] == size:
        return images
    return nn.functional.avg_pool2d(images.to(torch.float32), images.shape[2] // size)
