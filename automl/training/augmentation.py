"""Random changes of training images that keep their labels, a batch at a time on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from automl.training.symmetry import Symmetries

_FLIP_STREAM, _EPOCH_STREAM = 2, 3  # spawn keys of a training's generators
_JITTER = 0.3  # largest change of brightness, contrast and saturation at full strength
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Draws:
    """What happens to the images of one epoch, in their order; on the device of the images.

    Attributes:
        rows: which row of each image every row is taken from, (n, S).
        columns: the same for the columns.
        holes: first and last row and column of the lost square, (n, 4); None without any.
        jitter: factors of brightness, contrast and saturation, (n, 3); None for none.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    holes: torch.Tensor | None
    jitter: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly images are changed.

    Attributes:
        strength: 0 (not at all) to 1: images move by up to strength * size / 8 pixels, borders
            repeated, and lose a square of size / 4 with probability strength / 2; brightness,
            contrast and saturation of photographs change by up to strength * 0.3.
        symmetries: what the images may bear. Mirrored images alternate from epoch to epoch, so that
            two epochs in a row show each image both ways (arXiv:2404.00498, sec. 3.6).
        fill: colour of the lost squares, per channel, 0 to 255.
    """

    strength: float
    symmetries: Symmetries
    fill: tuple[float, ...]

    def draw(
        self, order: np.ndarray, size: int, seed: Sequence[int], epoch: int, device: torch.device
    ) -> Draws:
        """Return what happens in one epoch.

        Args:
            order: the epoch's row numbers, int64 (n,).
            size: height and width of the images, S.
            seed: of the training.
            epoch: its number, from 0.
            device: where the images are.
        """
        rng = np.random.default_rng(
            np.random.SeedSequence([*seed, epoch], spawn_key=(_EPOCH_STREAM,))
        )
        count, reach = len(order), round(self.strength * size / 8)
        shifts = rng.integers(-reach, reach + 1, (2, count, 1), dtype=np.int16)
        places = np.clip(np.arange(size, dtype=np.int16) + shifts, 0, size - 1)
        if self.strength > 0 and self.symmetries.mirror:
            first = np.random.default_rng(
                np.random.SeedSequence(list(seed), spawn_key=(_FLIP_STREAM,))
            )
            is_first = first.random(int(order.max()) + 1)[order] < 0.5
            is_flipped = is_first ^ (epoch % 2 == 1)
            places[1][is_flipped] = places[1][is_flipped, ::-1]
        rows, columns = torch.from_numpy(places).to(device)
        holes = self._holes(count, size, rng, device)
        return Draws(rows, columns, holes, self._jitter(count, rng, device))

    def _holes(
        self, count: int, size: int, rng: np.random.Generator, device: torch.device
    ) -> torch.Tensor | None:
        side = size // 4
        if self.strength == 0 or side == 0:
            return None
        start = rng.integers(0, size - side + 1, (count, 2), dtype=np.int16)
        start[rng.random(count) >= self.strength / 2] = size  # outside: nothing is lost
        return torch.from_numpy(np.concatenate([start, start + side], axis=1)).to(device)

    def _jitter(
        self, count: int, rng: np.random.Generator, device: torch.device
    ) -> torch.Tensor | None:
        if self.strength == 0 or not self.symmetries.colour:
            return None
        most = _JITTER * self.strength
        factors = rng.uniform(1 - most, 1 + most, (count, 3)).astype(np.float32)
        return torch.from_numpy(factors).to(device)

    def apply(self, images: torch.Tensor, draws: Draws, part: slice) -> torch.Tensor:
        """Return changed copies of a batch.

        Args:
            images: uint8 (B, S, S, C).
            draws: of the epoch.
            part: which of the epoch's images these are.

        Returns:
            (B, S, S, C), uint8 or, where colours change, float32.
        """
        if self.strength == 0:
            return images
        size, device = images.shape[1], images.device
        batch = torch.arange(len(images), device=device)[:, None, None]
        rows, columns = draws.rows[part].long(), draws.columns[part].long()
        changed = images[batch, rows[:, :, None], columns[:, None, :]]
        if draws.jitter is not None:
            changed = _recoloured(changed, draws.jitter[part])
        if draws.holes is None:
            return changed
        place = torch.arange(size, device=device)
        start, end = draws.holes[part, :2, None], draws.holes[part, 2:, None]
        inside = (place >= start) & (place < end)  # (B, 2, S): rows and columns
        hole = inside[:, 0, :, None] & inside[:, 1, None, :]
        fill = torch.tensor(self.fill, device=device).round().to(changed.dtype)
        return torch.where(hole[..., None], fill, changed)


def _recoloured(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Return images whose brightness, contrast and saturation are scaled, float32."""
    brightness, contrast, saturation = factors.T[:, :, None, None, None]
    values = images.to(torch.float32) * brightness
    luma = (values * torch.tensor(_LUMA, device=values.device)).sum(dim=3, keepdim=True)
    mean = luma.mean(dim=(1, 2), keepdim=True)
    values = saturation * values + (1 - saturation) * luma
    return torch.clamp(contrast * values + (1 - contrast) * mean, 0, 255)
