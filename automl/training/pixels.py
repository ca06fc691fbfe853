"""Images as whole pixels, so that one gather moves all channels of a pixel."""

from __future__ import annotations

import torch
from torch import nn

_PIXEL_BYTES = 4  # of a pixel of several channels; the last ones may be unused


def pack(images: torch.Tensor) -> torch.Tensor:
    """Return images as pixels: uint8 (n, S, S) of one channel, else int32 (n, S, S).

    Args:
        images: uint8 (n, S, S, C), C at most 4; gray ones are not copied.
    """
    channels = images.shape[-1]
    if channels == 1:
        return images[..., 0]
    padded = nn.functional.pad(images, (0, _PIXEL_BYTES - channels))
    return padded.view(torch.int32)[..., 0]


def unpack(pixels: torch.Tensor, channels: int) -> torch.Tensor:
    """Return pixels as images, uint8 (n, S, S, C); gray ones share their memory.

    A channel at a time: kernels are slow where they copy three of four bytes each time.
    """
    if channels == 1:
        return pixels[..., None]
    values = pixels[..., None].view(torch.uint8)
    return torch.cat([values[..., c : c + 1] for c in range(channels)], dim=-1)


def pixel_bytes(channels: int) -> int:
    """Return how many bytes a pixel takes."""
    return 1 if channels == 1 else _PIXEL_BYTES
