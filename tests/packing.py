"""Archives of images, packed in many ways, and what is read of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np

from automl.storage.memory import MemoryObjectStore
from automl.tracks.image.decode import MOST_PIXELS, encode_png
from automl.tracks.image.sources import Listing, SourceLocation, SourceRow, list_source
from tests.local import problems_of

Files = dict[str, bytes]
Pack = Callable[[Files], bytes]


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    return encode_png(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))


CLASSES: Files = {f"{'ab'[n % 2]}/{n:02d}.png": picture(n) for n in range(20)}


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def stored(files: Files) -> bytes:
    return zipped(files, zipfile.ZIP_STORED)


def with_64_bits(files: Files) -> bytes:
    """Return an archive with a comment, and sizes that its local headers tell in 64 bits."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
        archive.comment = b"PK\x05\x06 is how an end begins"
    return buffer.getvalue()


def behind_a_program(files: Files) -> bytes:
    return b"#!/bin/sh\n" * 100 + zipped(files)


def tarred(files: Files, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tarred_gnu(files: Files) -> bytes:
    return tarred(files, tarfile.GNU_FORMAT)


def tarred_ustar(files: Files) -> bytes:
    return tarred(files, tarfile.USTAR_FORMAT)


PACKS: dict[str, tuple[str, Pack]] = {
    "deflated": ("x.zip", zipped),
    "stored": ("x.ZIP", stored),
    "64 bits": ("x.zip", with_64_bits),
    "behind a program": ("x.zip", behind_a_program),
    "pax": ("x.tar", tarred),
    "gnu": ("x.tar", tarred_gnu),
    "ustar": ("x.tar", tarred_ustar),
}
TAR, ZIP = tarred(CLASSES), zipped(CLASSES)


def holding(key: str, data: bytes) -> MemoryObjectStore:
    store = MemoryObjectStore()
    store.put(key, data)
    return store


def listed(name: str, data: bytes, inside: str = "") -> Listing:
    store = holding(f"data/{name}", data)
    return list_source(SourceLocation(store, f"data/{name}/{inside}".rstrip("/")))


def content(listing: Listing, row: SourceRow) -> bytes:
    return listing.store.get(row.key).data


def reasons(listing: Listing, most_pixels: int = MOST_PIXELS) -> dict[str, str]:
    """Return why rows cannot be used, by path; the rows are read."""
    found = zip(listing.rows, problems_of(listing, most_pixels), strict=True)
    return {row.path: problem for row, problem in found if problem}
