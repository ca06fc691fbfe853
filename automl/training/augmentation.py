"""Random changes of training images that keep their labels, a batch at a time on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from automl.training.rows import Batch
from automl.training.symmetry import Symmetries

_FLIP_STREAM, _EPOCH_STREAM = 2, 3  # spawn keys of a training's generators
_REACH = 8  # images move by one part in so many of their size, at full strength
_JITTER = 0.3  # largest change of contrast and brightness at full strength
_BALANCE = 0.3  # share of a brightness' change that each channel has of its own


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some images of an epoch, k of them.

    Attributes:
        numbers: which, ascending, int64 (k,); on the host, so that no batch waits for the device.
        images: the same on the device of the images.
    """

    numbers: np.ndarray
    images: torch.Tensor

    @classmethod
    def of(cls, is_chosen: np.ndarray, device: torch.device) -> Chosen:
        """Return those for which a bool (n,) is true."""
        (numbers,) = np.nonzero(is_chosen)
        return cls(numbers, torch.from_numpy(numbers).to(device))

    def within(self, part: slice) -> tuple[slice, torch.Tensor]:
        """Return which of the chosen ones are in a batch, and their places in it, int64 (b,).

        Args:
            part: which of the epoch's images the batch has.
        """
        few = slice(*np.searchsorted(self.numbers, (part.start, part.stop)).tolist())
        return few, self.images[few] - part.start

    def change(
        self, images: torch.Tensor, part: slice, how: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        """Change the chosen images of a batch in place.

        Args:
            images: uint8 (B, S, S, C), contiguous.
            part: which of the epoch's images these are.
            how: gives the chosen ones, uint8 (b, S, S, C), as they become.
        """
        _, places = self.within(part)
        changed = how(images.index_select(0, places)).contiguous()
        _words(images).index_copy_(0, places, _words(changed))


@dataclass(frozen=True, slots=True)
class LostSquares:
    """The squares that some images of an epoch lose, k of them; on the device of the images.

    Attributes:
        chosen: the images.
        rows: the squares' rows, int64 (k, side, 1).
        columns: their columns, int64 (k, 1, side).
        colour: what they are filled with, uint8 (3,).
    """

    chosen: Chosen
    rows: torch.Tensor
    columns: torch.Tensor
    colour: torch.Tensor

    def fill(self, images: torch.Tensor, part: slice) -> None:
        """Fill the squares of a batch in place.

        Args:
            images: uint8 (B, S, S, C).
            part: which of the epoch's images these are.
        """
        few, places = self.chosen.within(part)
        squares = places[:, None, None], self.rows[few], self.columns[few]
        images[squares] = self.colour[: images.shape[-1]]


@dataclass(frozen=True, slots=True)
class Draws:
    """Changes of the images of one epoch, in their order; on the device of the images.

    Attributes:
        rows: which row of each image every row is taken from, int16 (n, S).
        shifts: how many pixels further to the right its columns are taken from, int16 (n, 1).
        mirrored: the images that are mirrored left to right then; None if none may be.
        transposed: those whose rows and columns are exchanged then; likewise.
        lost: the squares that are lost; None where images keep theirs.
        colours: a factor of each channel's values and what is added then, float32 (2, n, 3); None
            where colours stay.
    """

    rows: torch.Tensor
    shifts: torch.Tensor
    mirrored: Chosen | None
    transposed: Chosen | None
    lost: LostSquares | None
    colours: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Strength of the changes of images.

    Attributes:
        strength: 0 (not at all) to 1: images move by up to strength * size / 8 pixels, borders
            repeated, and lose a square of size / 4 with probability strength / 2; contrast,
            brightness and colour balance of photographs change by up to strength * 0.3.
        symmetries: the changes that keep labels. Images and those mirrored left to right alternate
            from epoch to epoch, so that two epochs in a row show each image both ways
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
        count, reach = len(order), self.reach(size)
        down, right = rng.integers(-reach, reach + 1, (2, count, 1), dtype=np.int16)
        rows = np.clip(np.arange(size, dtype=np.int16) + down, 0, size - 1)
        mirrored = transposed = None
        if self.strength > 0 and self.symmetries.mirror:
            first = np.random.default_rng(
                np.random.SeedSequence(list(seed), spawn_key=(_FLIP_STREAM,))
            )
            is_first = first.random(int(order.max()) + 1)[order] < 0.5
            mirrored = Chosen.of(is_first ^ (epoch % 2 == 1), device)
        if self.strength > 0 and self.symmetries.turned:
            is_inverted = rng.random(count) < 0.5
            rows[is_inverted] = rows[is_inverted, ::-1]
            transposed = Chosen.of(rng.random(count) < 0.5, device)
        return Draws(
            torch.from_numpy(rows).to(device),
            torch.from_numpy(right).to(device),
            mirrored,
            transposed,
            self._lost(count, size, rng, device),
            self._colours(count, rng, device),
        )

    def reach(self, size: int) -> int:
        """Return how many pixels images of a size move by at most."""
        return round(self.strength * size / _REACH)

    def _lost(
        self, count: int, size: int, rng: np.random.Generator, device: torch.device
    ) -> LostSquares | None:
        side = size // 4
        if self.strength == 0 or side == 0:
            return None
        corners = rng.integers(0, size - side + 1, (count, 2), dtype=np.int16).astype(np.int64)
        chosen = Chosen.of(rng.random(count) < self.strength / 2, device)
        down, right = torch.from_numpy(corners[chosen.numbers]).to(device)[:, :, None].unbind(1)
        reach = torch.arange(side, device=device)
        colour = torch.tensor([round(value) for value in self.fill], dtype=torch.uint8)
        return LostSquares(
            chosen, (down + reach)[:, :, None], (right + reach)[:, None, :], colour.to(device)
        )

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

    def changed(
        self, rows: Batch, draws: Draws, first: int, batch_size: int
    ) -> Iterator[torch.Tensor]:
        """Yield the changed images of some batches, each (B, S, S, C).

        They are uint8 or, where colours change, float32. What moves pixels is done for all batches
        at once: for one of small images, calling the kernels takes longer than the kernels do.

        Args:
            rows: those of the batches, one after another.
            draws: of the epoch.
            first: which of the epoch's images the first one is.
            batch_size: images of a batch; the last one may have fewer.
        """
        count, part = len(rows.places), slice(first, first + len(rows.places))
        images = rows.images if self.strength == 0 else self._moved(rows, draws, part)
        tints = None if draws.colours is None else _tints(draws.colours[:, part], images.shape[1])
        for start in range(0, count, batch_size):
            few = slice(start, start + batch_size)
            # Without a name the last batch is let go of before the next one takes its memory.
            yield images[few] if tints is None else _tinted(images[few], tints[:, few])

    def _moved(self, rows: Batch, draws: Draws, part: slice) -> torch.Tensor:
        images = rows.lines.shifted(rows.places, draws.rows[part], draws.shifts[part])
        if draws.mirrored is not None:
            draws.mirrored.change(images, part, lambda some: some.flip(2))
        if draws.transposed is not None:
            draws.transposed.change(images, part, lambda some: some.transpose(1, 2))
        if draws.lost is not None:
            draws.lost.fill(images, part)
        return images


def most_reach(size: int) -> int:
    """Return how many pixels images of a size move by at most, at full strength."""
    return round(size / _REACH)


def _words(images: torch.Tensor) -> torch.Tensor:
    """Return images as rows of eight bytes at a time, if they can be: these are copied faster."""
    values = images.flatten(1)
    return values.view(torch.int64) if values.shape[1] % 8 == 0 else values


def _tints(colours: torch.Tensor, size: int) -> torch.Tensor:
    """Return factors and offsets of all values of a line, float32 (2, B, 1, S * 3).

    Kernels are slow where they broadcast over three values.

    Args:
        colours: see `Draws`, (2, B, 3).
        size: of the images, S.
    """
    return colours.repeat(1, 1, size)[:, :, None]


def _tinted(images: torch.Tensor, tints: torch.Tensor) -> torch.Tensor:
    """Return uint8 images (B, S, S, 3) with other colours, float32."""
    factors, offsets = tints
    lines = images.float().flatten(2)
    return torch.addcmul(offsets, lines, factors, out=lines).clamp_(0, 255).view(images.shape)
