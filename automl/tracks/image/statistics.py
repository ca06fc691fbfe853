"""Numbers of one image by which two snapshots are compared: its light, its detail, its shape."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from automl.data.profile import Bins, Scale

# Each statistic with the bins that profiles count it in.
STATISTICS: Mapping[str, Bins] = MappingProxyType(
    {
        "brightness": Bins(scale=Scale.LINEAR, size=4.0),
        "contrast": Bins(scale=Scale.LINEAR, size=2.0),
        "sharpness": Bins(scale=Scale.LOG, size=2.0),
        "colourfulness": Bins(scale=Scale.LINEAR, size=2.0),
        "height": Bins(scale=Scale.LOG, size=8.0),
        "width": Bins(scale=Scale.LOG, size=8.0),
    }
)
_VIEW = 64  # most pixels of an edge that are looked at
_GREY = (77, 150, 29)  # Rec. 601 luma in 256ths
_GREY_UNIT = 256


def row_statistics(pixels: NDArray[np.uint8]) -> Mapping[str, float]:
    """Return the statistics of one image, by the names of `STATISTICS`, in that order.

    Every n-th pixel of every n-th row is looked at, at most 64 of each. Sums are of integers, so
    that every machine finds the same.

    - brightness, contrast: mean and standard deviation of the grey image, 0 to 255.
    - sharpness: variance of its Laplacian (Pech-Pacheco et al., ICPR 2000), 0 for images that are
      too small to have one.
    - colourfulness: metric M(3) of Hasler and Suesstrunk, "Measuring colourfulness in natural
      images", 2003; 0 for grey images.
    - height, width: in pixels.

    Args:
        pixels: uint8 `[H, W, 3]`, of any size.
    """
    height, width = pixels.shape[:2]
    view = pixels[:: -(-height // _VIEW), :: -(-width // _VIEW)]
    red, green, blue = view.transpose(2, 0, 1).astype(np.int32, order="C")
    grey = _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue
    brightness, variance = _moments(grey)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    laplacian = 4 * grey[1:-1, 1:-1] - around
    red_green, red_green_variance = _moments(red - green)
    doubled, doubled_variance = _moments(red + green - 2 * blue)  # yellow less blue, twice
    spread = (red_green_variance + doubled_variance / 4) ** 0.5
    offset = (red_green**2 + (doubled / 2) ** 2) ** 0.5
    return {
        "brightness": brightness / _GREY_UNIT,
        "contrast": variance**0.5 / _GREY_UNIT,
        "sharpness": _moments(laplacian)[1] / _GREY_UNIT**2,
        "colourfulness": spread + 0.3 * offset,
        "height": float(height),
        "width": float(width),
    }


def _moments(values: NDArray[np.int32]) -> tuple[float, float]:
    """Return mean and variance of integers below 2 to the 19th; zeros without any."""
    flat = values.astype(np.float64).ravel()  # in which these sums of integers are exact
    if not flat.size:
        return 0.0, 0.0
    total, squares = int(flat.sum()), int(flat @ flat)
    return total / flat.size, (flat.size * squares - total * total) / flat.size**2
