"""Which changes of its images a dataset bears, found by looking at the images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from automl.training.examples import Examples

_SIDE = 8  # pixels of the images that are compared
_KNOWN, _ASKED = 4000, 1000  # rows at most
_KEPT = 0.5  # of what is known of the class, in mirrored images
_COLOURED = 8.0  # mean difference between a pixel's channels, 0 to 255
_PHOTOGRAPH_PX = 32  # smaller images are rather drawn than photographed


@dataclass(frozen=True, slots=True)
class Symmetries:
    """What images may bear without becoming another class's.

    Attributes:
        mirror: being mirrored left to right.
        colour: changes of contrast, brightness and colour balance, as photographs.
    """

    mirror: bool
    colour: bool


def find_symmetries(train: Examples, held_out: Examples) -> Symmetries:
    """Return what the images of a dataset bear.

    Being mirrored counts as a symmetry if the nearest training image still tells the class of
    mirrored held-out images: of what it tells of the images themselves beyond guessing the most
    frequent class, more than half must remain. Photographs of animals, plants and clothes keep
    two thirds and more, digits a quarter.

    Args:
        train: the rows to learn from.
        held_out: other rows; without any, images are taken to bear nothing.
    """
    if len(held_out) == 0 or len(train) == 0:
        return Symmetries(mirror=False, colour=False)
    known, asked = _evenly(train, _KNOWN), _evenly(held_out, _ASKED)
    guessed = float(np.bincount(asked.labels).max()) / len(asked)
    straight = _right(known, asked) - guessed
    mirrored = _right(known, Examples(asked.images[:, :, ::-1], asked.labels)) - guessed
    spread = np.abs(np.diff(known.images.astype(np.int16), axis=3)).mean()
    is_photograph = train.images.shape[1] >= _PHOTOGRAPH_PX and spread >= _COLOURED
    return Symmetries(mirror=mirrored > straight * _KEPT > 0, colour=bool(is_photograph))


def _evenly(rows: Examples, most: int) -> Examples:
    """Return at most `most` rows, spread over all."""
    step = max(1, math.ceil(len(rows) / most))
    return Examples(rows.images[::step], rows.labels[::step])


def _small(images: np.ndarray) -> torch.Tensor:
    """Return images as points, float32 (n, side * side * C), brightness and contrast removed."""
    values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    small = nn.functional.adaptive_avg_pool2d(values, min(_SIDE, images.shape[1])).flatten(1)
    centred = small - small.mean(dim=1, keepdim=True)
    return nn.functional.normalize(centred, dim=1)


def _right(known: Examples, asked: Examples) -> float:
    """Return the share of images whose nearest known one has their label."""
    nearest = (_small(asked.images) @ _small(known.images).T).argmax(dim=1).numpy()
    return float((known.labels[nearest] == asked.labels).mean())
