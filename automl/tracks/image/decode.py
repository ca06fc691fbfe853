"""Image files to pixels, by the rules that consumers of an exported file follow too.

8-bit RGB after the EXIF orientation; alpha over white; 16-bit grey divided by 257 (rounded); no
colour profile. Pillow itself reduces 16-bit *colour* PNG files to their high bytes, at most one
level away from the division.
"""

from __future__ import annotations

import io
import struct
import zlib
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from automl.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_HINT = "replace the file, or remove its row"
_BROKEN_FILE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels of an encoded image, uint8 `[H, W, 3]`, C-contiguous.

    Raises:
        DataError: the bytes are no whole image of a known format; the message is the reason.
    """
    if not data:
        raise DataError("the file is empty", _HINT)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return np.ascontiguousarray(_to_rgb(upright))
    except UnidentifiedImageError as error:
        raise DataError(f"not an image file ({', '.join(FORMATS)})", _HINT) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"the image is too large: {error}", _HINT) from error
    except _BROKEN_FILE as error:
        raise DataError(f"the image cannot be decoded: {error}", _HINT) from error


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file whose decoding is exactly `pixels`, uint8 `[H, W, 3]`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """Return 64 hexadecimal digits that identify pixels and shape, uint8 `[H, W, 3]`."""
    digest = blake2b(repr(pixels.shape).encode(), digest_size=32)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image).astype(np.int64))
    if image.mode == "F":
        raise DataError("floating-point pixels have no fixed range", _HINT)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _from_16_bit(grey: NDArray[np.int64]) -> NDArray[np.uint8]:
    if grey.min() < 0 or grey.max() > 65535:
        raise DataError("the pixels have more than 16 bits", _HINT)
    levels = ((grey + 128) // 257).astype(np.uint8)
    return np.repeat(levels[:, :, np.newaxis], 3, axis=2)
