"""The weights that networks begin with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automl.morphism.architecture import Architecture, Op
from automl.training.module import Normalization, Weights

_LOGIT_SHARE = 0.1  # of the usual size of the logits' weights: no class is preferred at first
_WHITENED_ROWS, _WHITENED_PATCHES = 1000, 50_000
_LEAST_VARIANCE = 1e-2  # of unit variance, added to that of every direction
_PATCH_STREAM = 1  # spawn key


def initial_weights(architecture: Architecture, seed: Sequence[int]) -> Weights:
    """Return fresh float32 weights, equal for equal seeds.

    He-initialised (arXiv:1502.01852), with small logits. Convolutions that have at least as many
    filters as channels pass these on at first, as in airbench (arXiv:2404.00498, sec. 3.3).
    """
    rng = np.random.default_rng(np.random.SeedSequence(list(seed), spawn_key=(0,)))
    last, weights = len(architecture.nodes) - 1, Weights()
    for key, shape in architecture.weight_shapes().items():
        place, name = key.split(".")
        node = architecture.nodes[int(place)]
        if name == "weight" and node.op is not Op.BATCH_NORM:
            gain = np.sqrt(2.0 / np.prod(shape[1:])) if int(place) != last else _logit_gain(shape)
            weights[key] = rng.standard_normal(shape, dtype=np.float32) * np.float32(gain)
            if node.op is Op.CONV and node.integer("groups") == 1 and node.inputs != (0,):
                _pass_on(weights[key])
        else:
            fill = 1.0 if name in {"weight", "running_var"} else 0.0
            weights[key] = np.full(shape, fill, np.float32)
    return weights


def _logit_gain(shape: tuple[int, ...]) -> float:
    return float(_LOGIT_SHARE / np.sqrt(shape[1]))  # no relu after logits


def _pass_on(filters: np.ndarray) -> None:
    """Make the first filters of a convolution the identity where there is one for each channel."""
    count, channels, kernel, _ = filters.shape
    if kernel > 1 and channels <= count:
        filters[:channels] = 0
        channel = np.arange(channels)
        filters[channel, channel, kernel // 2, kernel // 2] = 1


def whiten(
    weights: Weights,
    architecture: Architecture,
    images: np.ndarray,
    normalization: Normalization,
    seed: Sequence[int],
) -> None:
    """Make first convolutions read the principal components of the images' patches, in place.

    Each component, scaled to unit variance, has a filter of either sign, those of large variance
    first, as in airbench (arXiv:2404.00498, sec. 3.2); here they are trained further. Filters that
    are left over stay as they are.

    Args:
        weights: fresh ones.
        architecture: whose weights they are.
        images: to learn from, uint8 [n, S, S, C].
        normalization: of the images.
        seed: decides which patches are read.
    """
    readers = [
        index
        for index, node in enumerate(architecture.nodes)
        if node.op is Op.CONV and node.inputs == (0,) and node.integer("groups") == 1
    ]
    for index in readers:
        filters = weights[f"{index}.weight"]
        kernel = filters.shape[2]
        if kernel > images.shape[1]:
            continue
        components = _components(_patches(images, kernel, seed), normalization)
        count = min(len(filters) // 2, len(components))
        found = components[:count].reshape(count, kernel, kernel, -1).transpose(0, 3, 1, 2)
        filters[:count], filters[count : 2 * count] = found, -found


def _patches(images: np.ndarray, size: int, seed: Sequence[int]) -> np.ndarray:
    """Return random patches of random images, uint8 [n, size, size, C]."""
    rng = np.random.default_rng(np.random.SeedSequence(list(seed), spawn_key=(_PATCH_STREAM,)))
    chosen = images[np.sort(rng.permutation(len(images))[:_WHITENED_ROWS])]
    rows = rng.integers(0, len(chosen), (_WHITENED_PATCHES, 1, 1))
    down, right = rng.integers(0, images.shape[1] - size + 1, (2, _WHITENED_PATCHES, 1, 1))
    place = np.arange(size)
    return np.asarray(chosen[rows, down + place[:, None], right + place])


def _components(patches: np.ndarray, normalization: Normalization) -> np.ndarray:
    """Return what makes the components of patches, float32 [k * k * C, k * k * C], large first."""
    mean, std = (np.array(part, np.float32) for part in (normalization.mean, normalization.std))
    scaled = (patches.astype(np.float32) - mean) / std
    flat = scaled.reshape(len(patches), -1)
    variances, directions = np.linalg.eigh((flat.T @ flat).astype(np.float64) / len(flat))
    made: np.ndarray = (directions / np.sqrt(np.maximum(variances, 0) + _LEAST_VARIANCE)).T[::-1]
    return made.astype(np.float32)
