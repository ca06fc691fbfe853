"""Real files of images, archives and tables, and mutants of them: one for each number."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from tests.packing import picture, stored, tarred, tarred_gnu, zipped

TABLES_EVERY = 20  # of so many mutants one is of an archive, of arrays or of a table
_PNG_START = b"\x89PNG\r\n\x1a\n"
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file that is damaged, if not always.

    Attributes:
        number: gives the same file again.
        name: of the file.
        sample: what it was made of.
        data: its content.
    """

    number: int
    name: str
    sample: str
    data: bytes

    @property
    def is_image(self) -> bool:
        """Answer to whether it is a single image."""
        return self.name.startswith("image")


def mutant(number: int, tables: Mapping[str, bytes]) -> Mutant:
    """Return the mutant of a number; equal numbers give equal files where libraries are equal.

    Args:
        number: any.
        tables: archives, arrays and tables by the names of their files.
    """
    rng = random.Random(number)  # noqa: S311 - a choice that can be made again
    is_table = number % TABLES_EVERY == 0
    samples = tables if is_table else images()
    sample = rng.choice(sorted(samples))
    data = bytearray(samples[sample])
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        rng.choice(_MUTATIONS)(rng, data, samples)
    if data.startswith(_PNG_START) and rng.random() < 0.7:
        data = _with_checksums(data)
    name = sample if is_table else f"image-{number}"
    return Mutant(number, name, sample, bytes(data))


# --- samples ---


def _pixels(*shape: int, most: int = 256) -> np.ndarray:
    smooth = np.add.outer(np.arange(shape[0]) * 3, np.arange(shape[1]) * 5)
    noise = np.random.default_rng(0).integers(0, 64, shape)
    return (smooth.reshape(*smooth.shape, *([1] * (len(shape) - 2))) + noise) % most


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as a file of a kind."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _interlaced() -> bytes:
    """Return a PNG file of Adam7 passes, which Pillow does not write: greys of eight bits."""
    grey = _pixels(16, 16).astype(np.uint8)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1))  # fmt: skip
    lines = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, right in passes
        for row in grey[top::down, left::right]
    )
    header = b"\0\0\0\x10\0\0\0\x10\x08\0\0\0\x01"
    return bytes(
        _with_checksums(
            bytearray(
                _PNG_START
                + b"".join(
                    len(body).to_bytes(4, "big") + kind + body + bytes(4)
                    for kind, body in (
                        (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""),
                    )
                )
            )
        )
    )  # fmt: skip


@cache
def images() -> Mapping[str, bytes]:
    """Return whole images of every form that is decoded, by what they are."""
    colour = Image.fromarray(_pixels(33, 41, 3).astype(np.uint8))
    grey, alpha = colour.convert("L"), colour.convert("RGBA")
    alpha.putalpha(grey)
    palette = colour.quantize(32)
    sixteen = Image.fromarray(_pixels(20, 24, most=2**16).astype(np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    frames = {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}
    found = {
        "PNG": saved(colour, "PNG"),
        "PNG interlaced": _interlaced(),
        "PNG 16 bits": saved(sixteen, "PNG"),
        "PNG palette": saved(palette, "PNG", transparency=3),
        "PNG alpha": saved(alpha, "PNG"),
        "PNG one bit": saved(colour.convert("1"), "PNG"),
        "PNG EXIF": saved(colour, "PNG", exif=exif),
        "PNG frames": saved(colour, "PNG", **frames),
        "JPEG": saved(colour, "JPEG"),
        "JPEG progressive": saved(colour, "JPEG", progressive=True),
        "JPEG CMYK": saved(colour.convert("CMYK"), "JPEG"),
        "JPEG grey": saved(grey, "JPEG", restart_marker_rows=1),
        "JPEG EXIF": saved(colour, "JPEG", exif=exif, comment="a comment"),
        "WEBP": saved(colour, "WEBP", exif=exif),
        "WEBP lossless": saved(alpha, "WEBP", lossless=True),
        "WEBP frames": saved(colour, "WEBP", **frames),
        "BMP": saved(colour, "BMP"),
        "BMP palette": saved(palette, "BMP"),
        "BMP one bit": saved(colour.convert("1"), "BMP"),
        "GIF": saved(palette, "GIF"),
        "GIF frames": saved(colour, "GIF", **frames),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4"):
        bits = colour.convert("1") if compression == "group4" else colour
        found[f"TIFF {compression}"] = saved(bits, "TIFF", compression=compression, exif=exif)
    found["TIFF 16 bits"] = saved(sixteen, "TIFF")
    found["TIFF CMYK"] = saved(colour.convert("CMYK"), "TIFF", compression="tiff_lzw")
    found["TIFF palette"] = saved(palette, "TIFF", tiffinfo={270: "x" * 40})
    return found


@cache
def tables() -> Mapping[str, bytes]:
    """Return archives, arrays and a table, by the names of their files."""
    files = {f"{'ab'[n % 2]}/{n}.png": picture(n) for n in range(6)}
    text = "path,label\n" + "".join(f'{name},"class {name[0]}"\n' for name in files)
    with_table = {**files, "train.csv": text.encode()}
    found = {
        "deflated.zip": zipped(files), "stored.zip": stored(with_table),
        "pax.tar": tarred(files), "gnu.tar": tarred_gnu(with_table), "train.csv": text.encode(),
    }  # fmt: skip
    for name, save in (("plain.npz", np.savez), ("packed.npz", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, x=_pixels(8, 8, 8).astype(np.uint8), y=np.array(["a", "b"] * 4))
        found[name] = buffer.getvalue()
    return found


@cache
def parquet() -> Mapping[str, bytes]:
    """Return tables that pyarrow writes, by the names of their files."""
    import pyarrow
    from pyarrow.parquet import write_table

    table = pyarrow.table({"path": [f"{n}.png" for n in range(40)], "label": ["a", "b"] * 20})
    found = {}
    for compression in ("none", "snappy", "zstd"):
        buffer = io.BytesIO()
        write_table(table, buffer, compression=compression, row_group_size=16)
        found[f"{compression}.parquet"] = buffer.getvalue()
    return found


# --- mutations, in place ---


def _place(rng: random.Random, data: bytearray) -> int:
    """Return a place; more of them are among the first, where headers are."""
    return rng.randrange(min(len(data), 64 if rng.random() < 0.3 else len(data)))


def _flip(rng: random.Random, data: bytearray, _: Mapping[str, bytes]) -> None:
    for _number in range(rng.choice((1, 1, 4, 32))):
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray, _: Mapping[str, bytes]) -> None:
    at, size = _place(rng, data), rng.randrange(1, 17)
    data[at : at + size] = rng.randbytes(size)


def _truncate(rng: random.Random, data: bytearray, _: Mapping[str, bytes]) -> None:
    del data[rng.randrange(1, len(data) + 1) :]


def _cut(rng: random.Random, data: bytearray, _: Mapping[str, bytes]) -> None:
    at = _place(rng, data)
    del data[max(1, at) : at + rng.randrange(1, 65)]


def _splice(rng: random.Random, data: bytearray, samples: Mapping[str, bytes]) -> None:
    other = samples[rng.choice(sorted(samples))]
    data[_place(rng, data) :] = other[rng.randrange(len(other)) :]
    data += b"\0" * (not data)


def _number(rng: random.Random, data: bytearray, _: Mapping[str, bytes]) -> None:
    """Replace what may be a length, a count, an offset or a side."""
    at, size = _place(rng, data), rng.choice((1, 2, 4, 8))
    value = rng.choice((*_EXTREMES, rng.randrange(2**16), len(data)))
    field = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(("big", "little")))
    data[at : at + size] = field


def _repeat(rng: random.Random, data: bytearray, _: Mapping[str, bytes]) -> None:
    at, size = _place(rng, data), rng.randrange(1, 512)
    data[at:at] = data[at : at + size] * rng.choice((1, 2, 20))


def _repeat_chunk(rng: random.Random, data: bytearray, samples: Mapping[str, bytes]) -> None:
    """Double a chunk of a PNG file; elsewhere any part."""
    found = _chunks(data)
    if not found:
        _repeat(rng, data, samples)
        return
    start, end = rng.choice(found)
    data[start:start] = data[start:end] * rng.choice((1, 2, 50))


def _noughts(rng: random.Random, data: bytearray, _: Mapping[str, bytes]) -> None:
    at, size = _place(rng, data), rng.randrange(1, 200)
    data[at : at + size] = bytes(len(data[at : at + size]))


_MUTATIONS: tuple[Callable[[random.Random, bytearray, Mapping[str, bytes]], None], ...] = (
    _flip, _flip, _overwrite, _truncate, _cut, _splice, _number, _number, _repeat, _repeat_chunk,
    _noughts,
)  # fmt: skip


def _chunks(data: bytearray) -> list[tuple[int, int]]:
    """Return where the chunks of a PNG file are."""
    found, at = [], len(_PNG_START)
    while data.startswith(_PNG_START) and at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        found.append((at, end))
        at = end
    return found


def _with_checksums(data: bytearray) -> bytearray:
    """Return a PNG file whose chunks have the checksums of their content."""
    for start, end in _chunks(data):
        data[end - 4 : end] = zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big")
    return data
