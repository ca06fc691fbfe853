"""Perceptual hashes and thumbnails of images, equal on every machine.

Pixels are averaged over areas in integers that floating-point numbers hold exactly, so that neither
the order of a sum nor the processor matters.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

THUMBNAIL_SIDE = 32
_ROWS, _COLUMNS = 8, 9
_GREY = np.array([299, 587, 114], np.float64)  # thousandths of red, green and blue, ITU-R BT.601
_STRIP_PIXELS = 2**20  # converted at a time


def difference_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return 64 bits for each image, uint8 `[n, H, W, 3]`, that change little with what is seen.

    An image is averaged over 8 rows of 9 areas; each bit tells whether one is brighter than the one
    to its right (dHash, N. Krawetz).
    """
    height, width = images.shape[1:3]
    across, down = _areas(width, _COLUMNS), _areas(height, _ROWS)
    found = np.empty(len(images), np.uint64)
    step = max(1, _STRIP_PIXELS // (height * width))
    for start in range(0, len(images), step):
        grey = images[start : start + step] @ _GREY
        found[start : start + step] = _bits(down @ (grey @ across.T))
    return found


def thumbnails(images: NDArray[np.uint8], side: int = THUMBNAIL_SIDE) -> NDArray[np.uint8]:
    """Return images of one shape, uint8 `[n, H, W, 3]`, averaged to `[n, side, side, 3]`, rounded.

    Smaller images are enlarged: each pixel is an area then.
    """
    height, width = images.shape[1:3]
    if (height, width) == (side, side):
        return images
    if height == width and height % side == 0:
        return _means(images, side)
    across, down = _areas(width, side), _areas(height, side)
    found = np.empty((len(images), side, side, 3), np.uint8)
    step = max(1, _STRIP_PIXELS // (3 * max(height * width, side * side)))
    for start in range(0, len(images), step):
        planes = images[start : start + step].transpose(0, 3, 1, 2).astype(np.float64)
        sums = down @ (planes @ across.T)
        means = np.floor(sums / (height * width) + 0.5)
        found[start : start + step] = means.transpose(0, 2, 3, 1)
    return found


def _means(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return what `thumbnails` does of squares whose areas are whole pixels.

    Slices are added one by one: a reduction would convert every pixel by itself, which takes four
    times as long.
    """
    n, size = images.shape[:2]
    pixels = size // side
    found = np.empty((n, side, side, 3), np.uint8)
    step = max(1, _STRIP_PIXELS // size**2)
    for start in range(0, n, step):
        lines = images[start : start + step].reshape(-1, side, pixels, size * 3)
        strips = _added(lines[:, :, at] for at in range(pixels))
        cells = strips.reshape(-1, side, side, pixels, 3)
        sums = _added(cells[:, :, :, at] for at in range(pixels))
        found[start : start + step] = (2 * sums + pixels**2) // (2 * pixels**2)
    return found


def _added(parts: Iterable[NDArray[np.unsignedinteger]]) -> NDArray[np.uint32]:
    """Return the sum of arrays of one shape, of which there is at least one."""
    following = iter(parts)
    total = next(following).astype(np.uint32)
    for part in following:
        total += part
    return total


@cache
def _areas(pixels: int, areas: int) -> NDArray[np.float64]:
    """Return how much of each pixel of a line is in each of equal areas [areas, pixels].

    A pixel counts as many units as there are areas, an area has as many units as there are pixels.
    """
    starts = np.arange(pixels) * areas
    low = np.arange(areas)[:, None] * pixels
    covered = np.minimum(starts + areas, low + pixels) - np.maximum(starts, low)
    shares: NDArray[np.float64] = np.maximum(covered, 0).astype(np.float64)
    return shares


def _bits(areas: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return 64 bits of sums over areas [n, 8, 9] as `[n]`."""
    brighter = areas[:, :, :-1] > areas[:, :, 1:]
    packed = np.packbits(brighter.reshape(len(areas), -1), axis=1)
    return packed.view(">u8")[:, 0].astype(np.uint64)
