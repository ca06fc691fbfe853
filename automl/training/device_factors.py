"""Speed of this machine at predicting, measured on a few networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from automl.morphism.architecture import Architecture, Node, Op
from automl.morphism.costs import DeviceFactors
from automl.morphism.nodes import conv
from automl.morphism.seeds import INPUT_CHANNELS, WORKING_SIZE, seed_architectures
from automl.training.inference import measure_latency_ms
from automl.training.initialization import initial_weights
from automl.training.module import Normalization

LARGEST_SIZE = 256  # pixels; larger images would take longer to measure, and are extrapolated
_MS_PER = np.array([1e-9, 1e-9, 1e-6])  # a picosecond, a picosecond, a nanosecond


def calibrate(image_size: int, classes: int) -> DeviceFactors:
    """Measure this machine on a handful of networks; takes about a second of one CPU core.

    Args:
        image_size: height and width of the study's images in pixels.
        classes: number of logits.
    """
    normalization = Normalization((0.0,) * INPUT_CHANNELS, (1.0,) * INPUT_CHANNELS)
    architectures = calibration_architectures(min(image_size, LARGEST_SIZE), classes)
    latencies_ms = [
        measure_latency_ms(architecture, initial_weights(architecture, (0,)), normalization)
        for architecture in architectures
    ]
    return fit_factors(architectures, latencies_ms)


def calibration_architectures(image_size: int, classes: int) -> list[Architecture]:
    """Return networks that differ in what dominates their latency.

    The seeds, and plain stacks: of few nodes, of many nodes, of 1 x 1 convolutions, which move many
    bytes for their multiply-adds, and of wide convolutions, which do the opposite.
    """
    return [
        *seed_architectures(image_size, classes),
        _stack(image_size, classes, width=8, extra=2, kernel=3),
        _stack(image_size, classes, width=8, extra=12, kernel=3),
        _stack(image_size, classes, width=64, extra=2, kernel=1),
        _stack(image_size, classes, width=96, extra=2, kernel=3),
    ]


def fit_factors(
    architectures: Sequence[Architecture], latencies_ms: Sequence[float]
) -> DeviceFactors:
    """Return the non-negative factors with the least sum of squared relative errors.

    Args:
        architectures: three or more.
        latencies_ms: measured, one for each.
    """
    counts = np.array([(a.macs, a.activation_bytes, len(a.nodes)) for a in architectures])
    relative = counts * _MS_PER / np.array(latencies_ms)[:, None]
    scale = relative.max(axis=0)  # so that the columns are of one magnitude
    factors, _ = nnls(relative / scale, np.ones(len(architectures)))
    return DeviceFactors(*(round(float(factor)) for factor in factors / scale))


def _stack(image_size: int, classes: int, *, width: int, extra: int, kernel: int) -> Architecture:
    """Return convolutions that halve the image to the seeds' working size, and `extra` more."""
    nodes, size = [Node(Op.INPUT)], image_size
    while size > WORKING_SIZE or extra > 0:
        stride = 2 if size > WORKING_SIZE else 1
        size, extra = (size - 1) // stride + 1, extra - (stride == 1)
        last = len(nodes) - 1
        nodes.append(conv(last, width, kernel, stride=stride))
        nodes += [Node(Op.BATCH_NORM, (last + 1,)), Node(Op.RELU, (last + 2,))]
    nodes.append(Node(Op.GLOBAL_POOL, (len(nodes) - 1,)))
    nodes.append(Node(Op.DENSE, (len(nodes) - 1,), {"units": classes}))
    return Architecture(image_size, INPUT_CHANNELS, tuple(nodes)).canonical()[0]
