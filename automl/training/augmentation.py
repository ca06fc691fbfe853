"""Random changes of training images that keep their labels, a batch at a time on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from automl.training.pixels import pack, unpack
from automl.training.rows import Batch
from automl.training.symmetry import Symmetries

_FLIP_STREAM, _EPOCH_STREAM = 2, 3  # spawn keys of a training's generators
_JITTER = 0.3  # largest change of contrast and brightness at full strength
_BALANCE = 0.3  # share of a brightness' change that each channel has of its own


@dataclass(frozen=True, slots=True)
class Draws:
    """What happens to the images of one epoch, in their order; on the device of the images.

    Attributes:
        rows: which row of each image every row is taken from, int16 (n, S).
        columns: the same for the columns.
        transposed: which images have rows and columns exchanged then, bool (n, 1, 1); None if
            none may.
        lost: which rows and columns the lost square is in, 1 for those, uint8 (n, 2, S); None
            without any.
        colours: a factor of each channel's values and what is added then, float32 (2, n, 3); None
            where colours stay.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    transposed: torch.Tensor | None
    lost: torch.Tensor | None
    colours: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly images are changed.

    Attributes:
        strength: 0 (not at all) to 1: images move by up to strength * size / 8 pixels, borders
            repeated, and lose a square of size / 4 with probability strength / 2; contrast,
            brightness and colour balance of photographs change by up to strength * 0.3.
        symmetries: what the images may bear. Images and those mirrored left to right alternate from
            epoch to epoch, so that two epochs in a row show each image both ways
            (arXiv:2404.00498, sec. 3.6); the other ways of seeing it are drawn.
        fill: mean colour of the images, per channel, 0 to 255; that of the lost squares.
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
        transposed = None
        if self.strength > 0 and self.symmetries.turned:
            is_inverted = rng.random(count) < 0.5
            places[0][is_inverted] = places[0][is_inverted, ::-1]
            transposed = torch.from_numpy(rng.random((count, 1, 1)) < 0.5).to(device)
        rows, columns = torch.from_numpy(places).to(device)
        lost = self._lost(count, size, rng, device)
        return Draws(rows, columns, transposed, lost, self._colours(count, rng, device))

    def _lost(
        self, count: int, size: int, rng: np.random.Generator, device: torch.device
    ) -> torch.Tensor | None:
        side = size // 4
        if self.strength == 0 or side == 0:
            return None
        start = rng.integers(0, size - side + 1, (count, 2), dtype=np.int16)
        start[rng.random(count) >= self.strength / 2] = size  # outside: nothing is lost
        behind = np.arange(size, dtype=np.int16) - start[:, :, None]
        inside = (behind >= 0) & (behind < side)
        return torch.from_numpy(inside.view(np.uint8)).to(device)

    def _colours(
        self, count: int, rng: np.random.Generator, device: torch.device
    ) -> torch.Tensor | None:
        """Return the affine map of every image's channels.

        Contrast is taken about the mean colour of all images.
        """
        if self.strength == 0 or not self.symmetries.colour:
            return None
        change = _JITTER * self.strength * rng.uniform(-1, 1, (count, 5))
        contrast, common, own = 1 + change[:, :1], change[:, 1:2], change[:, 2:]
        brightness = 1 + (1 - _BALANCE) * common + _BALANCE * own
        maps = np.stack([contrast * brightness, (1 - contrast) * np.array(self.fill)])
        return torch.from_numpy(maps.astype(np.float32)).to(device)

    def apply(self, batch: Batch, draws: Draws, part: slice) -> torch.Tensor:
        """Return the changed images of a batch.

        Args:
            batch: the rows.
            draws: of the epoch.
            part: which of the epoch's images these are.

        Returns:
            (B, S, S, C), uint8 or, where colours change, float32.
        """
        if self.strength == 0:
            return batch.images
        size, device = batch.pixels.shape[-1], batch.pixels.device
        rows, columns = draws.rows[part].long(), draws.columns[part].long()
        places = (batch.places[:, None] * size + rows).reshape(-1)
        lines = batch.pixels.reshape(-1, size).index_select(0, places)  # quicker than indexing
        lines = lines.reshape(len(rows), size, size)
        moved = lines.gather(2, columns[:, None, :].expand(-1, size, -1))
        if draws.transposed is not None:
            moved = torch.where(draws.transposed[part], moved.transpose(1, 2), moved)
        if draws.lost is not None:
            # Products and sums take half as long as `and` and `where`.
            down, right = draws.lost[part].unbind(1)
            is_lost = down[:, :, None] * right[:, None, :]
            moved = (self._fill(batch.channels, device) - moved).mul_(is_lost).add_(moved)
        if draws.colours is None:
            return unpack(moved, batch.channels)
        return _recoloured(moved, draws.colours[:, part])

    def _fill(self, channels: int, device: torch.device) -> torch.Tensor:
        """Return the fill colour as one pixel."""
        colour = [round(value) for value in self.fill[:channels]]
        image = torch.tensor(colour, dtype=torch.uint8, device=device).reshape(1, 1, 1, channels)
        return pack(image)[0, 0, 0]


def _recoloured(pixels: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Return images with other colours, float32 (B, S, S, 3).

    Args:
        pixels: int32 (B, S, S), of three channels.
        colours: see `Draws`, (2, B, 3).
    """
    count, size, _ = pixels.shape
    # Whole lines at a time: kernels are slow where they broadcast over three values.
    lines = unpack(pixels, 3).float().reshape(count, size, size * 3)
    factors, offsets = colours.repeat(1, 1, size)[:, :, None]
    changed = torch.addcmul(offsets, lines, factors, out=lines).clamp_(0, 255)
    return changed.reshape(count, size, size, 3)
