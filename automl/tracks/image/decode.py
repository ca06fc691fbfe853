"""Image files to pixels, by the rules that consumers of an exported file follow too.

8-bit RGB after the EXIF orientation; alpha over white; 16-bit grey divided by 257 (rounded); no
colour profile; the first frame of several. Pillow itself reduces 16-bit *colour* PNG files to their
high bytes, at most one level away from the division.
"""

from __future__ import annotations

import ctypes
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, _imaging

from automl.errors import DataError
from automl.tracks.image.foreign import kind_of

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
MOST_PIXELS = 50_000_000  # of an image, unless somebody says more
_HINT = "replace the file, or remove its row"
_BROKEN_FILE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
ANY_PIXELS = 178_956_970  # Pillow decodes no more
MOST_SIDE = 65_535  # as in JPEG; stretching takes memory and time by the height, not by the pixels
_STRIP_PIXELS = 2**20  # converted at a time: an image of 50 million pixels is converted in place
_ORIENTATION = 0x0112  # of EXIF
Pixels = NDArray[np.uint8]
_TURNS: Mapping[int, Callable[[Pixels], Pixels]] = {  # views of pixels as the camera was held
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels[::-1].transpose(1, 0, 2),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}


def _quiet() -> None:
    """Keep Pillow and its libtiff from telling of a file without its name: an error is raised."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    set_handler = getattr(ctypes.CDLL(_imaging.__file__), "TIFFSetErrorHandler", None)
    if set_handler is not None:  # else Pillow was built without libtiff, or with it inside
        set_handler(None)


_quiet()


def decode_image(data: bytes, most_pixels: int = MOST_PIXELS) -> Pixels:
    """Return the pixels of an encoded image, uint8 `[H, W, 3]`, C-contiguous.

    Its memory is at most some eight bytes for each of `most_pixels`, and the file's own size.

    Args:
        data: the file.
        most_pixels: that it may have, at most `ANY_PIXELS`; more are refused, not decoded. A WebP
            file may have half of them, a progressive JPEG file two thirds, since they take more
            memory. No side may be longer than `MOST_SIDE`.

    Raises:
        DataError: the bytes are no whole image of a known format; the message is the reason.
    """
    if not data:
        raise DataError("the file is empty", _HINT)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            why = _too_large(image, most_pixels)
            if why:
                raise DataError(why, _HINT)
            image.load()
            orientation = image.getexif().get(_ORIENTATION, 1)
            pixels = _to_rgb(image)
    except UnidentifiedImageError as error:
        kind = kind_of(data)
        but = f", but {kind}" if kind else ""
        raise DataError(f"not an image file ({', '.join(FORMATS)}){but}", _HINT) from error
    except Image.DecompressionBombError as error:
        why = _too_many(f"more than {ANY_PIXELS:,}", most_pixels, "data.max_pixels")
        raise DataError(why, _HINT) from error
    except _BROKEN_FILE as error:
        raise DataError(f"the image cannot be decoded: {error}", _HINT) from error
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def longer_side(data: bytes, most_pixels: int) -> int | None:
    """Return the longer side of an encoded image in pixels, which its header tells; None if none.

    Args:
        data: the file.
        most_pixels: that it may have.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return None if _too_large(image, most_pixels) else max(image.size)
    except (UnidentifiedImageError, Image.DecompressionBombError, *_BROKEN_FILE):
        return None


def _too_large(image: Image.Image, most_pixels: int) -> str:
    """Return why an image whose header was read is too large to be decoded; "" if it is not."""
    width, height = image.size
    most, told = most_pixels, "data.max_pixels"
    if image.format == "WEBP":  # the decoder holds two canvases, and the frame it gives
        most, told = most_pixels // 2, f"half of {told}, for WebP takes twice the memory"
    elif image.info.get("progressive"):  # libjpeg holds all coefficients
        most, told = 2 * most_pixels // 3, f"two thirds of {told}, for it is progressive"
    if width * height > most:
        return _too_many(f"{width} by {height}", most, told)
    if max(width, height) > MOST_SIDE:
        return f"the image has {width} by {height} pixels, and no side may have over {MOST_SIDE:,}"
    return ""


def _too_many(pixels: str, most: int, told: str) -> str:
    return f"the image has {pixels} pixels, more than {most:,} ({told})"


def encode_png(pixels: Pixels) -> bytes:
    """Return a PNG file whose decoding is exactly `pixels`, uint8 `[H, W, 3]`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def pixel_digest(pixels: Pixels) -> str:
    """Return 64 hexadecimal digits that identify pixels and shape, uint8 `[H, W, 3]`."""
    digest = blake2b(repr(pixels.shape).encode(), digest_size=32)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _to_rgb(image: Image.Image) -> Pixels:
    """Return the pixels of a loaded image, converted strip by strip."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        whole = bottom - top == height
        strip = image if whole else image.crop((0, top, width, bottom))
        pixels[top:bottom] = _strip_to_rgb(strip)
    return pixels


def _strip_to_rgb(strip: Image.Image) -> Pixels:
    if strip.mode.startswith("I"):
        return _from_16_bit(np.asarray(strip).astype(np.int64))
    if strip.mode == "F":
        raise DataError("floating-point pixels have no fixed range", _HINT)
    if strip.has_transparency_data:
        rgba = strip.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        strip = Image.alpha_composite(white, rgba)
    return np.asarray(strip.convert("RGB"), dtype=np.uint8)


def _from_16_bit(grey: NDArray[np.int64]) -> Pixels:
    if grey.min() < 0 or grey.max() > 65535:
        raise DataError("the pixels have more than 16 bits", _HINT)
    levels = ((grey + 128) // 257).astype(np.uint8)
    return np.repeat(levels[:, :, np.newaxis], 3, axis=2)
