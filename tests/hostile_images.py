"""Files of many kinds that lie where images should: those that can be learnt from, and others."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from automl.tracks.image.decode import encode_png
from tests.mutations import images, saved
from tests.packing import CLASSES, tarred, zipped

Make = bytes | Callable[[Path], None]


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    return encode_png(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))


def _array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 4), np.uint8))
    return buffer.getvalue()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere.png")


def _looping(path: Path) -> None:
    path.symlink_to(path)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**31)  # takes no room


_JPEG = images()["JPEG"]
BAD: Mapping[str, tuple[Make, str]] = {
    "empty.png": (b"", "the file is empty"),
    "text.png": (b"hello", "not an image file"),
    "torn.png": (picture(1)[:70], "cannot be decoded"),
    "torn.jpg": (_JPEG[: len(_JPEG) // 2], "cannot be decoded"),
    "head.jpg": (_JPEG[:4], "a damaged JPEG file"),
    "torn.gif": (images()["GIF"][:9], "a damaged GIF file"),
    "torn.bmp": (images()["BMP"][:20], "cannot be decoded"),
    "torn.tif": (images()["TIFF raw"][:30], "a damaged TIFF file"),
    "torn.webp": (images()["WEBP"][:100], "cannot be decoded"),
    "pointer.png": (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    "page.jpg": (b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
    "denied.jpg": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "an XML document"),
    "answer.jpg": (b'{"error": "not found"}', "a JSON document"),
    "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "phone.jpg": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "a HEIC image"),
    "web.jpg": (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1avif", "an AVIF image"),
    "film.jpg": (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2", "a video"),
    "scan.tif": (b"II+\x00\x08\x00\x00\x00" + bytes(40), "a BigTIFF file"),
    "layers.png": (b"8BPS\x00\x01" + bytes(40), "a Photoshop file"),
    "paper.png": (b"%PDF-1.7\n", "a PDF file"),
    "packed.png": (zipped(CLASSES), "a zip archive"),
    "packed.jpg": (tarred(CLASSES), "a tar archive"),
    "array.png": (_array(), "a NumPy array"),
    "x-ray.jpg": (bytes(128) + b"DICM" + bytes(40), "a DICOM file"),
    "hole.png": (b"\x00" * 5000, "nothing but zeros"),
    "float.tif": (saved(Image.new("F", (4, 4), 0.5), "TIFF"), "no fixed range"),
    "deep.tif": (saved(Image.new("I", (4, 4), 2**20), "TIFF"), "more than 16 bits"),
    "bomb.png": (saved(Image.new("1", (20_000, 20_000)), "PNG"), "more than 50,000,000"),
    "large.png": (saved(Image.new("1", (9_000, 6_000)), "PNG"), "9000 by 6000 pixels"),
    "large.webp": (saved(Image.new("RGB", (16_000, 1_600)), "WEBP", method=0), "for WebP takes"),
    "thread.png": (saved(Image.new("1", (1, 9**7)), "PNG"), "no side may have over 65,535"),
    "huge.png": (_huge, "2,147,483,648 bytes"),
    "pipe.png": (_fifo, "it is neither a file nor a folder"),
    "dangling.png": (_dangling, "it is a link that leads nowhere"),
    "loop.png": (_looping, "it is a link that leads to itself"),
    os.fsdecode(b"b\xe4r.png"): (picture(2), "its name is not UTF-8 text"),
}
SHOWN = {os.fsdecode(b"b\xe4r.png"): r"b\xe4r.png"}


@cache
def odd_but_good() -> Mapping[str, bytes]:
    """Return files that are odd, and can be learnt from, by their names."""
    colour = Image.open(io.BytesIO(images()["PNG"])).convert("RGB")
    found = {
        "large-alpha": saved(Image.new("RGBA", (7_000, 7_000)), "PNG"),
        "large-web": saved(Image.new("RGB", (5_000, 5_000)), "WEBP", method=0),
        "one-pixel": saved(Image.new("L", (1, 1)), "PNG"),
        "one-line": saved(Image.new("RGB", (3_000, 1)), "PNG"),
        "one-column": saved(Image.new("RGB", (1, 3_000)), "JPEG"),
        "behind": images()["JPEG"] + b"something else",
        "profile": saved(colour, "PNG", icc_profile=bytes(200)),
        "optimised": saved(colour, "JPEG", optimize=True, quality=3),
        "lab": saved(colour.convert("YCbCr"), "JPEG"),
    }
    whole = {name.replace(" ", "-").lower(): data for name, data in images().items()}
    return {f"{name}.png": data for name, data in {**whole, **found}.items()}
