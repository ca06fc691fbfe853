from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest

from automl.errors import DataError
from automl.tracks.image.decode import decode_image


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", b"x")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    return buffer.getvalue()


def saved() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n", "Git LFS"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<title>404</title>", "a web page"),
        (b"<html><body>no such file", "a web page"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "an SVG drawing"),
        (b"<Error><Code>AccessDenied</Code></Error>", "an XML document"),
        (b'{"detail": "not found"}', "a JSON document"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "a HEIC image"),
        (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00", "an AVIF image"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00", "a video"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a sound or a video"),
        (b"%PDF-1.7\n", "a PDF file"),
        (zipped(), "a zip archive"),
        (tarred(), "a tar archive"),
        (gzip.compress(b"x"), "a gzip file"),
        (saved(), "a NumPy array"),
        (b"\x00" * 128 + b"DICM", "a DICOM file"),
        (b"\x00" * 4096, "nothing but zeros"),
        (b"\x89PNG\r\n\x1a\n" + b"\x07" * 40, "a damaged PNG file"),
    ],
)
def test_the_reason_says_what_a_file_is_instead(data: bytes, kind: str) -> None:
    with pytest.raises(DataError, match=f"not an image file.*but .*{kind}"):
        decode_image(data)


def test_a_file_of_an_unknown_kind_is_not_guessed_at() -> None:
    with pytest.raises(DataError, match=r"not an image file \([A-Z, ]+\) Hint"):
        decode_image(b"\x07\x08\x09 what may this be")
