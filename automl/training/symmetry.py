"""Changes of images that keep their labels, found by looking at a dataset's images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from automl.training.examples import Examples

_SIDE = 8  # pixels of the images that are compared
_KNOWN, _ASKED = 4000, 1000  # rows at most
_KEPT = 0.4  # of what is known of the class, in images that are mirrored or turned
_COLOURED = 8.0  # mean difference between a pixel's channels, 0 to 255
_PHOTOGRAPH_PX = 32  # smaller images are rather drawn than photographed


@dataclass(frozen=True, slots=True)
class Symmetries:
    """Changes of images that keep their labels.

    Attributes:
        mirror: being mirrored left to right.
        colour: changes of contrast, brightness and colour balance, as photographs.
        turned: quarter turns and being mirrored in any direction, as what is seen from above.
    """

    mirror: bool
    colour: bool
    turned: bool = False


def find_symmetries(train: Examples, held_out: Examples) -> Symmetries:
    """Return which changes of a dataset's images keep their labels.

    Being mirrored counts as a symmetry if the nearest training image still tells the class of
    mirrored held-out images: of what it tells of the images themselves beyond guessing the most
    frequent class, more than two fifths must remain. Left to right, photographs of animals and
    clothes keep two thirds and more, digits 0.2 to 0.3; top to bottom these keep a third at most,
    at the diagonal a quarter. Images may be turned if both keep as much. Seedlings seen from above
    keep half in every direction, since some nearest images show the same plant a day later.

    Args:
        train: the rows to learn from.
        held_out: other rows; without any, no change counts as keeping labels.
    """
    if len(held_out) == 0 or len(train) == 0:
        return Symmetries(mirror=False, colour=False)
    known, asked = _evenly(train, _KNOWN), _evenly(held_out, _ASKED)
    guessed = float(np.bincount(asked.labels).max()) / len(asked)
    straight = _right(known, asked) - guessed

    def keeps_labels(changed: np.ndarray) -> bool:
        return _right(known, Examples(changed, asked.labels)) - guessed > _KEPT * straight > 0

    mirror = keeps_labels(asked.images[:, :, ::-1])
    flipped, transposed = asked.images[:, ::-1], asked.images.transpose(0, 2, 1, 3)
    turned = mirror and keeps_labels(flipped) and keeps_labels(transposed)
    spread = np.abs(np.diff(known.images.astype(np.int16), axis=3)).mean()
    is_photograph = train.images.shape[1] >= _PHOTOGRAPH_PX and spread >= _COLOURED
    return Symmetries(mirror, bool(is_photograph), turned)


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
