"""Images as lines of bytes that repeat their border, so that a shift copies lines as they lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Lines:
    """Images in memory, wider by a margin on both sides.

    Attributes:
        values: uint8 (N, S, (S + 2 * margin) * C), contiguous.
        margin: pixels on each side that repeat the first and the last of their line.
        channels: C.
    """

    values: torch.Tensor
    margin: int
    channels: int

    @classmethod
    def of(cls, images: torch.Tensor, margin: int) -> Lines:
        """Return images as lines; without a margin they are not copied.

        Args:
            images: uint8 (N, S, S, C).
            margin: pixels.
        """
        count, size, _, channels = images.shape
        if margin > 0:
            first, last = images[:, :, :1], images[:, :, -1:]
            left, right = (edge.expand(-1, -1, margin, -1) for edge in (first, last))
            images = torch.cat([left, images, right], dim=2)
        return cls(images.reshape(count, size, -1), margin, channels)

    def images(self, places: torch.Tensor) -> torch.Tensor:
        """Return some of the images, uint8 (B, S, S, C).

        Args:
            places: which, int64 (B,).
        """
        rows = torch.arange(self.values.shape[1], device=places.device)
        return self.shifted(places, rows[None], torch.zeros_like(places)[:, None])

    def shifted(
        self, places: torch.Tensor, rows: torch.Tensor, shifts: torch.Tensor
    ) -> torch.Tensor:
        """Return some of the images, shifted; uint8 (B, S, S, C).

        Args:
            places: which, int64 (B,).
            rows: which row each of theirs is taken from, integers (B, S) or (1, S).
            shifts: how many pixels further to the right each column is taken from, integers (B, 1),
                -margin to margin.
        """
        _, size, length = self.values.shape
        starts = (places[:, None] * size + rows) * length + (shifts + self.margin) * self.channels
        windows = self.values.reshape(-1).unfold(0, size * self.channels, 1)  # a view
        taken = windows.index_select(0, starts.reshape(-1))  # copies whole lines; indexing does not
        return taken.reshape(len(places), size, size, self.channels)


def line_bytes(size: int, channels: int, margin: int) -> int:
    """Return how many bytes a line of an image takes.

    Args:
        size: of the image, S.
        channels: C.
        margin: pixels on each side.
    """
    return (size + 2 * margin) * channels
