"""Random changes of a batch of training images that keep its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

_SMALL_PX = 32  # up to this size images are often digits or signs, which a flip turns into others


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly a batch is changed.

    Attributes:
        strength: 0 (not at all) to 1: images move by up to strength * size / 8 pixels, borders
            repeated, and lose a square of size / 4 with probability strength / 2.
        flip: whether half of the images are mirrored left to right.
        fill: colour of the lost squares, per channel, 0 to 255.
    """

    strength: float
    flip: bool
    fill: tuple[float, ...]

    def __call__(self, images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Return changed copies of `images`, uint8 (B, S, S, C), on the same device."""
        if self.strength == 0:
            return images
        count, size = images.shape[0], images.shape[1]
        reach = round(self.strength * size / 8)
        shifts = rng.integers(-reach, reach + 1, (2, count, 1))
        places = np.clip(np.arange(size) + shifts, 0, size - 1)
        if self.flip:
            flipped = rng.random(count) < 0.5
            places[1][flipped] = places[1][flipped, ::-1]
        rows, columns = torch.from_numpy(places).to(images.device)
        batch = torch.arange(count, device=images.device)
        images = images[batch[:, None, None], rows[:, :, None], columns[:, None, :]]
        hole = torch.from_numpy(self._holes(count, size, rng)).to(images.device)
        fill = torch.tensor(self.fill, device=images.device).round().to(torch.uint8)
        return torch.where(hole[..., None], fill, images)

    def _holes(self, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
        """Return where the squares are, bool (B, S, S)."""
        side = size // 4
        start = rng.integers(0, size - side + 1, (2, count, 1))
        inside = (np.arange(size) >= start) & (np.arange(size) < start + side)
        chosen = rng.random(count) < self.strength / 2
        holes: np.ndarray = inside[0][:, :, None] & inside[1][:, None, :] & chosen[:, None, None]
        return holes


def flips_by_default(size: int) -> bool:
    """Return whether images of `size` pixels are mirrored where no gene says so."""
    return size > _SMALL_PX
