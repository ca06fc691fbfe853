"""Predictions of trained weights, in float32 on the CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import numpy as np
import torch

from automl.morphism.architecture import Architecture
from automl.training.device import cpu_threads
from automl.training.module import Network, Normalization, build_module, load_weights

BATCH_ROWS = 128
_LATENCY_RUNS = 20
_WARM_UP_RUNS = 5


def logits_of(module: Network, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of images (n, C, S, S), float32 (n, classes), in evaluation mode."""
    was_training = module.training
    module.eval()
    with torch.inference_mode():
        logits = torch.cat([module(batch) for batch in torch.split(images, BATCH_ROWS)]).float()
    module.train(was_training)
    return logits


def probabilities_of(module: Network, images: np.ndarray) -> np.ndarray:
    """Return the class probabilities of images by a network, computed on its device.

    Args:
        module: the network.
        images: uint8 [n, S, S, C].

    Returns:
        float32 [n, classes].
    """
    device = next(module.parameters()).device
    pixels = torch.from_numpy(np.array(images)).to(device)
    logits = logits_of(module, pixels.permute(0, 3, 1, 2))
    return np.asarray(torch.softmax(logits, dim=1).cpu().numpy())


def predict_probabilities(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    normalization: Normalization,
    images: np.ndarray,
    threads: int,
) -> np.ndarray:
    """Return the class probabilities of images.

    Args:
        architecture: the network.
        weights: its weights.
        normalization: that of its training.
        images: uint8 [n, S, S, C].
        threads: CPU threads.

    Returns:
        float32 [n, classes].
    """
    if len(images) == 0:
        return np.zeros((0, architecture.classes), np.float32)
    module = build_module(architecture, normalization)
    load_weights(module, weights)
    with cpu_threads(threads):
        return probabilities_of(module, images)


def measure_latency_ms(
    architecture: Architecture, weights: Mapping[str, np.ndarray], normalization: Normalization
) -> float:
    """Return the median milliseconds for one image on one CPU thread."""
    module = build_module(architecture, normalization)
    load_weights(module, weights)
    size = architecture.input_size
    image = torch.zeros((1, architecture.input_channels, size, size), dtype=torch.uint8)
    seconds = []
    with cpu_threads(1):
        for _ in range(_WARM_UP_RUNS + _LATENCY_RUNS):
            start = time.perf_counter()
            logits_of(module, image)
            seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[_WARM_UP_RUNS:])
